"""Where events go."""

from __future__ import annotations

from abc import ABC, abstractmethod

from gglib.domain.events import Event

__all__ = ["EventSink"]


class EventSink(ABC):
    """Takes frozen, past-tense events."""

    __slots__ = ()

    @abstractmethod
    def emit(self, event: Event) -> None:
        """Take ``event``. Never blocks, never raises: the event has happened already."""
