"""Snapshots on a whole terminal, drawn anew at every look."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gglib.cli.top.snapshot import Snapshot
from gglib.cli.top.text import HEADINGS, device_line, event_line, headline, rows

__all__ = ["draw", "show"]

#: How many events are remembered; the newest that there is room for are shown.
_KEPT_EVENTS = 50
_SHOWN_EVENTS = 8
#: Columns that are words; the others are numbers, to the right.
_WORDS = ("MODEL", "STATE")
#: What goes first where there is no room for all columns.
_FIRST_TO_GO = ("PORT", "IN FLIGHT", "PID", "OLDEST", "REQ/S", "TTL LEFT", "QUEUED", "TTFT")
_GAP_CELLS = 2
_STYLES = {
    "ready": "green",
    "starting": "yellow",
    "waiting": "yellow",
    "stopping": "red",
    "away": "red",
}


async def show(
    look: Callable[[], Awaitable[Snapshot]],
    *,
    interval_s: float,
    quit_asked: Callable[[], Awaitable[object]],
) -> None:
    """Show looks, one every ``interval_s``, until ``quit_asked`` returns.

    The terminal is left as it was found, however this ends.
    """
    console = Console()
    events: deque[dict[str, Any]] = deque(maxlen=_KEPT_EVENTS)
    with Live(console=console, screen=True, auto_refresh=False, transient=True) as live:
        async with anyio.create_task_group() as tasks:

            async def end() -> None:
                await quit_asked()
                tasks.cancel_scope.cancel()

            tasks.start_soon(end)
            while True:
                snapshot = await look()
                events.extend(snapshot.events)
                width, height = console.size
                live.update(draw(snapshot, events, width=width, height=height), refresh=True)
                await anyio.sleep(interval_s)


def draw(
    snapshot: Snapshot, events: deque[dict[str, Any]], *, width: int, height: int
) -> RenderableType:
    """Return the picture of a look on a terminal of that size; the events go at its bottom."""
    top: list[RenderableType] = [_line(headline(snapshot), "red" if snapshot.trouble else "bold")]
    if snapshot.trouble is not None:
        top.append(_line("it is looked for again and again; q quits", "dim"))
    top += [_line(line, "cyan") for line in device_line(snapshot)]
    top.append(Text())
    recent = [event_line(each) for each in list(events)[-_SHOWN_EVENTS:]]
    below = len(recent) + 1 if recent else 0
    found = list(rows(snapshot))
    # The headings, and a line that says what is left out.
    room = max(1, height - len(top) - below - 3)
    body: list[RenderableType] = []
    if found:
        body.append(_table(found[:room], width))
        if len(found) > room:
            body.append(_line(f"and {len(found) - room} more", "dim"))
    elif snapshot.trouble is None:
        body.append(_line("no model is in memory", "dim"))
    used = len(top) + (min(len(found), room) + 1 if found else 0) + (len(found) > room)
    gap = max(0, height - used - below - 1 - (not found))
    bottom: list[RenderableType] = [_line(line, "dim") for line in recent]
    return Group(*top, *body, *(Text() for _ in range(gap)), *bottom, _line("q quits", "dim"))


def _table(found: list[tuple[str, ...]], width: int) -> Table:
    table = Table(
        box=None,
        padding=(0, _GAP_CELLS, 0, 0),
        pad_edge=False,
        header_style="bold reverse",
        expand=True,
    )
    shown = _columns(found, width)
    for name in shown:
        table.add_column(name, justify="left" if name in _WORDS else "right", no_wrap=True)
    for row in found:
        told = dict(zip(HEADINGS, row, strict=True))
        cells = {name: Text(told[name]) for name in shown}
        cells["STATE"].stylize(_STYLES.get(told["STATE"], "dim"))
        table.add_row(*cells.values())
    return table


def _columns(found: list[tuple[str, ...]], width: int) -> list[str]:
    """Return the columns that there is room for; the others stand in the plain listing."""
    needed = {
        name: max(len(name), *(len(row[number]) for row in found)) + _GAP_CELLS
        for number, name in enumerate(HEADINGS)
    }
    for name in _FIRST_TO_GO:
        if sum(needed.values()) - _GAP_CELLS <= width:
            break
        del needed[name]
    return list(needed)


def _line(text: str, style: str) -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
