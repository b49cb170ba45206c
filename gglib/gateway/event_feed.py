"""Events, for whoever listens at the moment: each in a queue of his own, and never too long."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from gglib.domain.events import Event
from gglib.ports.event_sink import EventSink

__all__ = ["MAX_WAITING", "EventFeed", "Listener"]

#: How many events a listener may be behind.
MAX_WAITING = 256


class Listener:
    """One who listens: takes events in order. Who is too slow loses the oldest."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Event] = deque(maxlen=MAX_WAITING)
        self._dropped = 0
        self._there = asyncio.Event()

    def put(self, event: Event) -> None:
        """Have him take ``event`` next; from any thread."""
        self._loop.call_soon_threadsafe(self._put, event)

    def _put(self, event: Event) -> None:
        self._dropped += len(self._waiting) == MAX_WAITING
        self._waiting.append(event)
        self._there.set()

    async def next(self) -> tuple[int, Event]:
        """Return the next event, as soon as there is one, and how many before it are lost."""
        while not self._waiting:
            self._there.clear()
            await self._there.wait()
        dropped, self._dropped = self._dropped, 0
        return dropped, self._waiting.popleft()


class EventFeed(EventSink):
    """Passes events on to sinks, and to who listens."""

    __slots__ = ("_listeners", "_sinks")

    def __init__(self, *sinks: EventSink) -> None:
        self._sinks = sinks
        self._listeners: set[Listener] = set()

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._listeners)

    def emit(self, event: Event) -> None:
        """See ``EventSink``."""
        for sink in self._sinks:
            sink.emit(event)
        for listener in tuple(self._listeners):
            listener.put(event)

    @contextmanager
    def listen(self) -> Iterator[Listener]:
        """Listen for the block, in a running loop of asyncio's."""
        listener = Listener()
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
