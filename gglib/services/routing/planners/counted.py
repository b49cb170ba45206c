"""So many servers at once, the least recently used goes first."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from gglib.errors import InvalidValue, NoRoom
from gglib.services.routing.planners.base import Held, Planner
from gglib.services.routing.terms import ModelTerms

__all__ = ["CountPlanner", "ExclusivePlanner"]


class CountPlanner(Planner):
    """At most ``size`` servers at once."""

    __slots__ = ("_size",)

    def __init__(self, size: int) -> None:
        if size < 1:
            raise InvalidValue("size", size, "an integer of 1 or more")
        self._size = size

    def plan(self, target: ModelTerms, held: Sequence[Held]) -> frozenset[int] | None:
        """See ``Planner``."""
        surplus = len(held) + 1 - self._size
        if surplus <= 0:
            return frozenset()
        pinned = [each.terms.name for each in held if each.pinned]
        if len(pinned) >= self._size:
            places = "the only place" if self._size == 1 else f"all {self._size} places"
            raise NoRoom(target.name, tuple(sorted(set(pinned))), f"they hold {places}")
        movable = [each for each in held if each.movable]
        if len(movable) < surplus:
            return None
        return frozenset(each.server for each in movable[:surplus])

    def kind(self, target: ModelTerms) -> Hashable:
        """See ``Planner``: all are equal."""
        return None


class ExclusivePlanner(CountPlanner):
    """One server at a time."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(1)
