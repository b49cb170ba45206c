"""Sets of models that may be in memory together, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from gglib.errors import InvalidValue, NoRoom
from gglib.services.routing.planners.base import Held, Planner
from gglib.services.routing.terms import ModelTerms

__all__ = ["MatrixPlanner"]

_NO_COSTS: Mapping[str, float] = MappingProxyType({})


class MatrixPlanner(Planner):
    """Whatever is in memory is part of one of the sets. A model in no set runs alone.

    Of the sets that hold the target, the one is chosen that costs least to reach: the sum of
    the ``costs`` of the servers that must go (1 where none is said); of equals, the one that
    disturbs fewer at work, then the one that was said first.
    """

    __slots__ = ("_costs", "_sets_of")

    def __init__(
        self, sets: Iterable[Iterable[str]], *, costs: Mapping[str, float] = _NO_COSTS
    ) -> None:
        self._sets_of: dict[str, list[frozenset[str]]] = {}
        for names in map(frozenset, sets):
            for name in names:
                self._sets_of.setdefault(name, []).append(names)
        self._costs = dict(costs)
        for name, cost in self._costs.items():
            if not cost >= 0:
                raise InvalidValue(f"costs[{name}]", cost, "a number of 0 or more")

    def plan(self, target: ModelTerms, held: Sequence[Held]) -> frozenset[int] | None:
        """See ``Planner``."""
        best: tuple[float, int] | None = None
        chosen: list[Held] | None = None
        only_pinned_are_in_the_way = True
        for names in self._sets_of.get(target.name, [frozenset({target.name})]):
            unwanted = [each for each in held if each.terms.name not in names]
            if any(each.pinned for each in unwanted):
                continue
            only_pinned_are_in_the_way = False
            if not all(each.movable for each in unwanted):
                continue
            price = (
                sum(self._costs.get(each.terms.name, 1.0) for each in unwanted),
                sum(not each.idle for each in unwanted),
            )
            if best is None or price < best:
                best, chosen = price, unwanted
        if chosen is not None:
            return frozenset(each.server for each in chosen)
        if only_pinned_are_in_the_way:
            pinned = sorted({each.terms.name for each in held if each.pinned})
            raise NoRoom(target.name, tuple(pinned), "no set of the matrix has it beside them")
        return None
