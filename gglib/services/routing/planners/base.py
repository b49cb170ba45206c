"""The one question that every planner answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Sequence

import attrs

from gglib.errors import NoRoom
from gglib.services.routing.terms import ModelTerms

__all__ = ["Held", "Planner", "without"]


@attrs.frozen(slots=True)
class Held:
    """A model that has a place, or is about to get one."""

    terms: ModelTerms
    movable: bool = True
    """Whether it may be evicted now. One that starts, stops or is pinned may not."""
    pinned: bool = False
    """Whether it may never be evicted."""
    idle: bool = True
    used_at: float = 0.0

    @property
    def cost(self) -> tuple[bool, float, int]:
        """What sorts the cheapest to evict first: idle, then the least recently used."""
        return (not self.idle, self.used_at, self.terms.model_id)


class Planner(ABC):
    """Says what must go so that a model can come. Pure: the same question, the same answer."""

    __slots__ = ()

    @abstractmethod
    def plan(self, target: ModelTerms, held: Sequence[Held]) -> frozenset[int] | None:
        """Return the ids of the cheapest models to evict so that ``target`` may start.

        Empty: it may start beside all of ``held``. ``None``: nothing that may go *now* would
        make room. Only movable ones are named. ``target`` is not among ``held``, which has
        the cheapest to evict first (``Held.cost``).

        Raises:
            DoesNotFit, NoRoom: it could not start even with all gone but the pinned ones.
        """

    def kind(self, target: ModelTerms) -> Hashable:
        """Return what a plan depends on beside ``held``: models of one kind get equal plans."""
        return target.model_id


def without(target: ModelTerms, unwanted: Iterable[Held], reason: str) -> frozenset[int] | None:
    """Return the ids of ``unwanted``, all of which must go; ``None`` if one cannot now.

    Raises:
        NoRoom: one is pinned.
    """
    unwanted = list(unwanted)
    if pinned := [each.terms.name for each in unwanted if each.pinned]:
        raise NoRoom(target.name, tuple(sorted(pinned)), reason)
    if not all(each.movable for each in unwanted):
        return None
    return frozenset(each.terms.model_id for each in unwanted)
