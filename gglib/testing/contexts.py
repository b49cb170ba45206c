"""What an adapter's factory is given, made of real parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gglib.bootstrap import SystemClock
from gglib.domain.events import Event
from gglib.ports.clock import Clock
from gglib.ports.context import AdapterContext, EngineSet
from gglib.ports.engine import Engine
from gglib.ports.event_sink import EventSink

__all__ = ["RecordingSink", "make_context"]


class RecordingSink(EventSink):
    """Keeps every event in ``events``, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    @property
    def names(self) -> list[str]:
        """The names of the events, in order."""
        return [event.name for event in self.events]

    def emit(self, event: Event) -> None:
        """Keep ``event``."""
        self.events.append(event)


def make_context(
    data_dir: Path,
    *,
    name: str = "test",
    settings: Mapping[str, Any] | None = None,
    engines: EngineSet | Mapping[str, Engine] | None = None,
    clock: Clock | None = None,
    events: EventSink | None = None,
) -> AdapterContext:
    """Return a context over ``data_dir``, which exists; what is not given is real, or empty.

    ``name`` is the name the adapter is configured under, ``settings`` its section.
    """
    return AdapterContext(
        name=name,
        settings=settings or {},
        data_dir=data_dir,
        clock=clock or SystemClock(),
        events=events or RecordingSink(),
        engines=engines if isinstance(engines, EngineSet) else EngineSet(engines or {}),
    )
