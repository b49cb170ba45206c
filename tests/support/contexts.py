"""What an adapter's factory needs, made of real parts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio

from gglib.domain.events import Event
from gglib.ports.clock import Clock
from gglib.ports.context import AdapterContext, EngineSet
from gglib.ports.engine import Engine
from gglib.ports.event_sink import EventSink

__all__ = ["RecordingSink", "SystemClockForTests", "make_context"]


class RecordingSink(EventSink):
    """Keeps every event in ``events``, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        """Keep ``event``."""
        self.events.append(event)


class SystemClockForTests(Clock):
    """The machine's own time."""

    def now(self) -> float:
        """Return Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds``."""
        await anyio.sleep(seconds)


def make_context(
    data_dir: Path,
    *,
    name: str = "x",
    settings: Mapping[str, Any] | None = None,
    engines: EngineSet | Mapping[str, Engine] | None = None,
    clock: Clock | None = None,
    events: EventSink | None = None,
) -> AdapterContext:
    """Return a context over ``data_dir``; what is not given is real, or empty."""
    return AdapterContext(
        name=name,
        settings=settings or {},
        data_dir=data_dir,
        clock=clock or SystemClockForTests(),
        events=events or RecordingSink(),
        engines=engines if isinstance(engines, EngineSet) else EngineSet(engines or {}),
    )
