"""``gglib top``: what it makes of a gateway's answers, and how it says that."""

from __future__ import annotations

import io
from collections import deque
from typing import Any

import pytest
from rich.console import Console

from gglib.cli.top.rates import Rates, RecentCounters
from gglib.cli.top.screen import draw
from gglib.cli.top.snapshot import GatewaySeen, Snapshot, absence, snapshot_of
from gglib.cli.top.text import device_line, event_line, headline, print_snapshot, rows

GATEWAY = GatewaySeen(address="http://127.0.0.1:1", pid=7, version="1.2", started_at=40.0)
GIB = 2**30


def metrics(requests: int, tokens: int = 0, begun: int = 0, after_s: float = 0.0) -> str:
    """Return what /metrics tells, with a line that is none of ours and one of no model."""
    return (
        'gglib_requests_total{model="unknown",route="other",status="404"} 99\n'
        f'gglib_requests_total{{model="m",route="/v1",status="200"}} {requests}\n'
        f'gglib_requests_total{{model="m",route="/v1",status="500"}} 1.0\n'
        f'gglib_completion_tokens_total{{model="m"}} {tokens}\n'
        f'gglib_first_byte_seconds_count{{model="m"}} {begun}\n'
        f'gglib_first_byte_seconds_sum{{model="m"}} {after_s}\n'
        'gglib_first_byte_seconds_bucket{le="1",model="m"} 3\n'
        "process_open_fds 9\n"
    )


def server(model: str = "m", **more: Any) -> dict[str, Any]:
    """Return a server as /running tells it."""
    told = {
        "model": model,
        "state": "ready",
        "engine": "mock",
        "device": "cpu",
        "pid": 11,
        "port": 12,
        "memory_bytes": {"cpu": GIB, "cuda0": 2 * GIB},
        "memory_observed_bytes": None,
        "in_flight": 2,
        "slots_total": 4,
        "requests": 5,
        "ttl_left_s": 90.0,
        "pinned": False,
    }
    return {**told, **more}


def seen(
    *running: dict[str, Any],
    queue: tuple[dict[str, Any], ...] = (),
    rates: Rates | None = None,
    budgets: dict[str, int] | None = None,
) -> Snapshot:
    """Return a look at a gateway that has these servers."""
    return snapshot_of(
        at=100.0,
        gateway=GATEWAY,
        running=running,
        queue=queue,
        pool={"metrics": {"hit_rate": 0.5}, "budgets_bytes": budgets or {}},
        rates=rates or Rates(),
    )


# Rates


def test_one_look_alone_tells_no_rate() -> None:
    """Not zero: nothing is known."""
    found = RecentCounters().take(1.0, metrics(5))
    assert (found.over_s, found.requests_per_s, found.tokens_per_s) == (0.0, None, None)


def test_rates_are_of_what_came_between_two_looks() -> None:
    """All routes and statuses together; what names no model is left out."""
    recent = RecentCounters()
    recent.take(1.0, metrics(5, tokens=100, begun=2, after_s=1.0))
    found = recent.take(3.0, metrics(9, tokens=140, begun=6, after_s=3.0))
    (rates,) = found.by_model.values()
    assert (rates.requests_per_s, rates.tokens_per_s, rates.first_byte_s) == (2.0, 20.0, 0.5)
    assert (found.over_s, found.requests_per_s, found.tokens_per_s) == (2.0, 2.0, 20.0)
    later = recent.take(4.0, metrics(9, tokens=140, begun=6, after_s=3.0))
    assert later.by_model["m"].first_byte_s == 0.5


def test_rates_forget_what_was_longer_ago_than_ten_seconds() -> None:
    """A burst is not told for ever."""
    recent = RecentCounters()
    recent.take(0.0, metrics(0))
    for second in range(1, 13):
        found = recent.take(float(second), metrics(100))
    assert (found.over_s, found.requests_per_s) == (10.0, 0.0)


# Snapshots


def test_servers_queues_and_devices_are_put_together() -> None:
    """Of a model that waits without a server, too."""
    waits = tuple({"model": "n", "waited_s": each} for each in (1.0, 3.5))
    found = seen(server(), server(), queue=waits, budgets={"cpu": 4 * GIB})
    assert [each.memory_bytes for each in found.servers] == [3 * GIB] * 2
    waiting = found.model("n")
    assert waiting is not None
    assert (waiting.queued, waiting.oldest_wait_s) == (2, 3.5)
    devices = {each.device: (each.needed_bytes, each.budget_bytes) for each in found.devices}
    assert devices == {"cpu": (2 * GIB, 4 * GIB), "cuda0": (4 * GIB, None)}


# Words


def test_row_of_a_server_has_what_is_known_of_its_model_once() -> None:
    """A second server of the model leaves its cells empty."""
    recent = RecentCounters()
    recent.take(1.0, metrics(5))
    rates = recent.take(2.0, metrics(7, tokens=9, begun=1, after_s=0.25))
    first, second = rows(seen(server(pinned=True), server(slots_total=None), rates=rates))
    assert first == (
        *("m (pinned)", "ready", "11", "12", "3.0 GiB", "2/4", "2", "0", "-"),
        *("2.0", "9.0", "250ms", "1m"),
    )
    assert second[5:] == ("-", "2", "", "", "", "", "", "1m")


def test_model_without_a_server_has_a_row_of_its_own() -> None:
    """Whether it waits, or has just gone."""
    recent = RecentCounters()
    recent.take(1.0, metrics(5))
    rates = recent.take(2.0, metrics(7))
    found = list(rows(seen(queue=({"model": "n", "waited_s": 61.0},), rates=rates)))
    assert [row[:2] for row in found] == [("n", "waiting"), ("m", "gone")]
    assert found[0][7:9] == ("1", "1m")


def test_headline_tells_the_gateway_or_why_it_is_not_seen() -> None:
    """And neither has rates before there are two looks."""
    assert headline(seen()) == "gglib 1.2 at http://127.0.0.1:1, pid 7, up 1m, 50% hits"
    assert headline(absence(1.0, "no gateway runs\non X")) == "no gateway runs on X"


def test_device_line_shows_how_full_it_is() -> None:
    """More than full is full; without a budget there is no share."""
    full = seen(server(), budgets={"cpu": GIB // 2})
    assert list(device_line(full)) == [
        "cpu  [####################] 1.0 GiB of 512.0 MiB, 200%",
        "cuda0  2.0 GiB used",
    ]


@pytest.mark.parametrize("text", ["\x1b[2Jx", "a\rb", "\x9b31m"])
def test_what_a_terminal_would_obey_is_not_printed(text: str) -> None:
    """An engine's last words come with events, and may be anything."""
    line = event_line({"event": "server.failed", "at": 0.0, "model_name": text, "reason": text})
    assert line.isprintable()


def test_event_is_a_line_of_its_fields() -> None:
    """Without those that say nothing to people."""
    event = {"event": "server.ready", "at": 0.0, "server_id": "X", "model_name": "m"}
    line = event_line({**event, "load_s": 0.123456, "pid": None})
    assert line.partition(" ")[2] == "server.ready m load_s=0.123"


def test_plain_listing_without_models_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """After the gateway's line."""
    print_snapshot(seen())
    assert capsys.readouterr().out.splitlines()[1:] == ["no model is in memory"]


# The screen


def drawn(snapshot: Snapshot, height: int, *, events: int = 0, width: int = 120) -> list[str]:
    """Return the lines of a picture."""
    console = Console(width=width, height=height, record=True, file=io.StringIO())
    told: deque[dict[str, Any]] = deque(
        {"event": "e", "at": 0.0, "number": number} for number in range(events)
    )
    console.print(draw(snapshot, told, width=width, height=height), end="")
    return console.export_text().splitlines()


@pytest.mark.parametrize("height", [6, 12, 24])
@pytest.mark.parametrize("servers", [0, 3, 40])
@pytest.mark.parametrize("trouble", [None, "it is gone"])
def test_picture_is_as_high_as_the_terminal(height: int, servers: int, trouble: str | None) -> None:
    """So that nothing scrolls; what there is no room for is counted."""
    found = seen(*[server() for _ in range(servers)], budgets={"cpu": GIB})
    if trouble is not None:
        found = absence(1.0, trouble)
    lines = drawn(found, height)
    assert len(lines) <= max(height, 8)
    assert lines[-1].startswith("q quits")
    if trouble is None and servers == 40:
        shown = sum("ready" in line for line in lines)
        assert any(f"and {40 - shown} more" in line for line in lines)


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_narrow_terminal_has_fewer_columns_and_none_cut(width: int) -> None:
    """Whoever it is, in what state, and what it takes is there."""
    lines = drawn(seen(server("qwen3-coder-30b", memory_bytes={"cpu": 17 * GIB})), 24, width=width)
    table = [line for line in lines if line.startswith(("MODEL", "qwen3"))]
    for word in ("qwen3-coder-30b", "ready", "17.0 GiB", "MEMORY", "SLOTS"):
        assert word in "\n".join(table)
    assert not any("…" in line for line in table)
    assert ("PORT" in table[0]) == (width == 140)
    assert ("TTL LEFT" in table[0]) == (width >= 80)
    assert "QUEUED" in table[0]


def test_newest_events_stand_at_the_bottom() -> None:
    """The oldest of many are not shown."""
    lines = drawn(seen(server()), 24, events=12)
    assert [line.rpartition("=")[2].strip() for line in lines[-9:-1]] == [
        str(number) for number in range(4, 12)
    ]
