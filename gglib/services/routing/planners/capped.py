"""Another planner's answer, with a limit on how many servers there are at once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from gglib.services.routing.planners.base import Held, Planner
from gglib.services.routing.planners.counted import CountPlanner
from gglib.services.routing.terms import ModelTerms

__all__ = ["CappedPlanner"]


class CappedPlanner(Planner):
    """``inner``, and never more than ``size`` servers at once."""

    __slots__ = ("_count", "_inner")

    def __init__(self, inner: Planner, size: int) -> None:
        self._inner = inner
        self._count = CountPlanner(size)

    def plan(self, target: ModelTerms, held: Sequence[Held]) -> frozenset[int] | None:
        """See ``Planner``."""
        victims = self._inner.plan(target, held)
        if victims is None:
            return None
        rest = [each for each in held if each.server not in victims]
        more = self._count.plan(target, rest)
        return None if more is None else victims | more

    def kind(self, target: ModelTerms) -> Hashable:
        """See ``Planner``."""
        return self._inner.kind(target)
