"""Waking those who wait, whatever thread and event loop they wait in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import anyio
import anyio.from_thread
import attrs
from anyio.lowlevel import EventLoopToken, current_token

__all__ = ["Bell"]


@attrs.frozen(eq=False)
class _Listener:
    event: anyio.Event = attrs.field(factory=anyio.Event)
    thread: int = attrs.field(factory=threading.get_ident)
    token: EventLoopToken = attrs.field(factory=current_token)

    def wake(self) -> None:
        if self.thread == threading.get_ident():
            self.event.set()
            return
        # An event loop that has ended has nobody left to wake.
        with suppress(anyio.RunFinishedError):
            anyio.from_thread.run_sync(self.event.set, token=self.token)


class Bell:
    """Wakes every task that listens when it is rung, from any thread."""

    __slots__ = ("_listeners", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: set[_Listener] = set()

    @contextmanager
    def listening(self) -> Iterator[anyio.Event]:
        """Give an event that the next ring sets: look at the state after this, then wait."""
        listener = _Listener()
        with self._lock:
            self._listeners.add(listener)
        try:
            yield listener.event
        finally:
            with self._lock:
                self._listeners.discard(listener)

    def ring(self) -> None:
        """Wake whoever listens. Safe in any thread."""
        with self._lock:
            listeners = list(self._listeners)
        # Not under the lock: a listener's thread may be waiting for it.
        for listener in listeners:
            listener.wake()
