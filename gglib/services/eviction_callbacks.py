"""Telling programs that a server is gone: functions, and coroutine functions that are awaited."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

import anyio

from gglib.domain.events import CallbackFailed
from gglib.ports.clock import Clock
from gglib.ports.event_sink import EventSink

__all__ = ["EvictionCallback", "EvictionCallbacks"]

#: How long one that is awaited may take: whoever closes gglib waits for it.
AWAITED_AT_MOST_S = 30.0

#: Is told the model, the device that had most of it, and why: ``swap``, ``unload``, ``drain``,
#: ``changed``, ``expired``, ``unhealthy``, ``shutdown`` or ``died``. What it returns is awaited,
#: if it can be.
EvictionCallback = Callable[[str, str, str], Any]


class EvictionCallbacks:
    """Calls all of them. What one raises becomes an event, and keeps no other from its turn."""

    __slots__ = ("_callbacks", "_clock", "_events")

    def __init__(self, *, clock: Clock, events: EventSink) -> None:
        self._clock = clock
        self._events = events
        self._callbacks: list[EvictionCallback] = []

    def add(self, callback: EvictionCallback) -> None:
        """Call this one, too, from now on."""
        self._callbacks.append(callback)

    async def tell(self, model: str, device: str, reason: str) -> None:
        """Call every callback at once, in order; then await what they return, all together.

        A cancellation breaks off none of it; ``AWAITED_AT_MOST_S`` does.
        """
        begun: list[tuple[EvictionCallback, Awaitable[Any]]] = []
        for callback in self._callbacks:
            try:
                result = callback(model, device, reason)
            except Exception as error:
                self._failed(callback, f"{type(error).__name__}: {error}")
            else:
                if isawaitable(result):
                    begun.append((callback, result))
        if not begun:
            return
        late = dict(enumerate(begun))

        async def finish(number: int) -> None:
            callback, awaitable = begun[number]
            try:
                await awaitable
            except Exception as error:
                self._failed(callback, f"{type(error).__name__}: {error}")
            del late[number]

        with anyio.move_on_after(AWAITED_AT_MOST_S, shield=True):
            async with anyio.create_task_group() as tasks:
                for number in range(len(begun)):
                    tasks.start_soon(finish, number)
        for callback, _ in late.values():
            self._failed(callback, f"it took longer than {AWAITED_AT_MOST_S:g} s")

    def _failed(self, callback: EvictionCallback, reason: str) -> None:
        name = getattr(callback, "__qualname__", repr(callback))
        self._events.emit(CallbackFailed(at=self._clock.now(), callback=name, reason=reason))
