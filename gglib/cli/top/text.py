"""Snapshots in words and columns: what a terminal and a plain listing have in common."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from gglib.cli.output import duration, print_table, say, size
from gglib.cli.top.snapshot import ModelSeen, ServerSeen, Snapshot

__all__ = ["HEADINGS", "device_line", "event_line", "headline", "print_snapshot", "rows"]

HEADINGS = (
    *("MODEL", "STATE", "PID", "PORT", "MEMORY", "SLOTS", "IN FLIGHT", "QUEUED", "OLDEST"),
    *("REQ/S", "TOK/S", "TTFT", "TTL LEFT"),
)
_NONE = "-"
#: Told already, or of no use to people.
_LEFT_OUT = frozenset({"event", "at", "model_name", "server_id"})
_BAR_CELLS = 20


def headline(snapshot: Snapshot) -> str:
    """Return the gateway in a line; or why it cannot be seen."""
    gateway = snapshot.gateway
    if snapshot.trouble is not None or gateway is None:
        return printable(snapshot.trouble or "")
    up = duration(snapshot.at - gateway.started_at)
    said = [f"gglib {gateway.version} at {gateway.address}", f"pid {gateway.pid}", f"up {up}"]
    if snapshot.requests_per_s is not None:
        said.append(f"{_rate(snapshot.requests_per_s)} requests/s")
        said.append(f"{_rate(snapshot.tokens_per_s)} tokens/s")
    if snapshot.hit_rate is not None:
        said.append(f"{snapshot.hit_rate:.0%} hits")
    return ", ".join(said)


def rows(snapshot: Snapshot) -> Iterator[tuple[str, ...]]:
    """Yield a row for each server, then one for each model that waits, or worked, without one.

    What is known of a model stands in the row of its first server.
    """
    told: set[str] = set()
    for server in snapshot.servers:
        model = None if server.model in told else snapshot.model(server.model)
        told.add(server.model)
        yield (*_of_server(server), *_of_model(model), _ttl(server))
    for model in snapshot.models:
        if model.model not in told:
            state = "waiting" if model.queued else "gone"
            nothing = (_NONE,) * 5
            yield (printable(model.model), state, *nothing, *_of_model(model), _NONE)


def device_line(snapshot: Snapshot) -> Iterator[str]:
    """Yield a line for each device: what models need of it, of what they may."""
    for each in snapshot.devices:
        if not each.budget_bytes:
            yield f"{printable(each.device)}  {size(each.needed_bytes)} used"
            continue
        share = each.needed_bytes / each.budget_bytes
        full = min(_BAR_CELLS, round(share * _BAR_CELLS))
        bar = "#" * full + "." * (_BAR_CELLS - full)
        used, whole = size(each.needed_bytes), size(each.budget_bytes)
        yield f"{printable(each.device)}  [{bar}] {used} of {whole}, {share:.0%}"


def event_line(event: dict[str, Any]) -> str:
    """Return an event in a line: when, what, of which model, and its other fields."""
    words = [time.strftime("%H:%M:%S", time.localtime(event.get("at", 0.0))), event["event"]]
    if event.get("model_name") is not None:
        words.append(str(event["model_name"]))
    words += [
        f"{key}={_written(value)}"
        for key, value in event.items()
        if key not in _LEFT_OUT and value is not None
    ]
    return printable(" ".join(words))


def print_snapshot(snapshot: Snapshot) -> None:
    """Print a snapshot, without events: those are of a time, and this is of a moment."""
    say(headline(snapshot))
    for line in device_line(snapshot):
        say(line)
    found = list(rows(snapshot))
    if found:
        say("")
        print_table(HEADINGS, found)
    else:
        say("no model is in memory")


def printable(text: str) -> str:
    """Return ``text`` without what a terminal would obey instead of showing."""
    return "".join(each if each.isprintable() else " " for each in text)


def _of_server(server: ServerSeen) -> tuple[str, ...]:
    slots = _NONE if server.slots_total is None else f"{server.in_flight}/{server.slots_total}"
    return (
        printable(server.model) + (" (pinned)" if server.pinned else ""),
        server.state,
        _number(server.pid),
        _number(server.port),
        size(server.memory_bytes) if server.memory_bytes else _NONE,
        slots,
        str(server.in_flight),
    )


def _of_model(model: ModelSeen | None) -> tuple[str, ...]:
    if model is None:
        return ("",) * 5
    return (
        str(model.queued),
        _seconds(model.oldest_wait_s),
        _rate(model.requests_per_s),
        _rate(model.tokens_per_s),
        _seconds(model.first_byte_s),
    )


def _ttl(server: ServerSeen) -> str:
    return _NONE if server.ttl_left_s is None else duration(server.ttl_left_s)


def _number(value: int | None) -> str:
    return _NONE if value is None else str(value)


def _rate(value: float | None) -> str:
    return _NONE if value is None else f"{value:.1f}"


def _seconds(value: float | None) -> str:
    if value is None:
        return _NONE
    if value < 1:
        return f"{value * 1000:.0f}ms"
    return f"{value:.1f}s" if value < 60 else duration(value)


def _written(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
