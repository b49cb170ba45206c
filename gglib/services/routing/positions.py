"""Tells those who wait where they stand, now and then."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from gglib.ports.clock import Clock
from gglib.services.routing.scheduler import Scheduler

__all__ = ["Positions"]

#: Four times a second is as fast as anybody reads.
_INTERVAL_S = 0.25


class Positions:
    """Looks at the queue as a whole, for all who listen, at most once in an interval.

    An event of the scheduler may move thousands; telling them of each would cost more than
    the event.
    """

    __slots__ = ("_clock", "_looked_at", "_places", "_scheduler")

    def __init__(self, scheduler: Scheduler, clock: Clock) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._places: dict[int, int] = {}
        self._looked_at = -_INTERVAL_S

    async def tell_until(
        self, ended: anyio.Event, ticket: int, listener: Callable[[int], None]
    ) -> None:
        """Tell ``listener`` how many stand before ``ticket``, when it changes, until ``ended``."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._tell, ticket, listener)
            await ended.wait()
            tasks.cancel_scope.cancel()

    async def _tell(self, ticket: int, listener: Callable[[int], None]) -> None:
        told: int | None = None
        while True:
            place = self._look().get(ticket)
            if place is not None and place != told:
                told = place
                listener(place)
            await self._clock.sleep(_INTERVAL_S)

    def _look(self) -> dict[int, int]:
        now = self._clock.monotonic()
        if now - self._looked_at >= _INTERVAL_S:
            self._looked_at = now
            self._places = {
                waiter.ticket: place for place, waiter in enumerate(self._scheduler.queue())
            }
        return self._places
