"""Who waits for one model, in the order in which they are served."""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from collections.abc import Iterator

import attrs

__all__ = ["Line", "Waiter"]


@attrs.define(eq=False)
class Waiter:
    """A request that waits."""

    ticket: int
    model_id: int
    priority: int
    number: int
    """Its place in the order of all arrivals."""
    arrived: float
    loads_only: bool = False
    """Wants the model ready, and sends it nothing."""
    session: str | None = None
    """What it belongs to, if it says so."""


class Line:
    """Waiters by priority, then by age. Every step costs the same, however many wait.

    (A few distinct priorities are assumed: it is linear in those.)
    """

    __slots__ = ("_lanes", "_priorities", "count")

    def __init__(self) -> None:
        self._lanes: dict[int, OrderedDict[int, Waiter]] = {}
        self._priorities: list[int] = []  # negated, so that the highest comes first
        self.count = 0

    def __bool__(self) -> bool:
        return self.count > 0

    def __iter__(self) -> Iterator[Waiter]:
        for negated in self._priorities:
            yield from self._lanes[-negated].values()

    def add(self, waiter: Waiter) -> None:
        """Put a waiter at the end of those of its priority."""
        lane = self._lanes.get(waiter.priority)
        if lane is None:
            lane = self._lanes[waiter.priority] = OrderedDict()
            insort(self._priorities, -waiter.priority)
        lane[waiter.ticket] = waiter
        self.count += 1

    def remove(self, waiter: Waiter) -> None:
        """Take a waiter out, wherever it stands."""
        lane = self._lanes[waiter.priority]
        del lane[waiter.ticket]
        self.count -= 1
        if not lane:
            del self._lanes[waiter.priority]
            self._priorities.remove(-waiter.priority)

    def head(self) -> Waiter | None:
        """Return who is next."""
        if not self._priorities:
            return None
        return next(iter(self._lanes[-self._priorities[0]].values()))

    def oldest(self, priority: int) -> Waiter | None:
        """Return who has waited longest of those with that priority."""
        lane = self._lanes.get(priority)
        return next(iter(lane.values())) if lane else None

    def head_up_to(self, number: int) -> Waiter | None:
        """Return who is next of those whose number is not above ``number``."""
        for negated in self._priorities:
            oldest = next(iter(self._lanes[-negated].values()))
            if oldest.number <= number:
                return oldest
        return None
