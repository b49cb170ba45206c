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
    """A server that has a place, or a model that is about to get one."""

    terms: ModelTerms
    server: int = 0
    """Its number, by which a plan names it; 0 = it has none yet, and is not movable."""
    movable: bool = True
    """Whether it may be evicted now. One that starts, stops or is pinned may not."""
    pinned: bool = False
    """Whether it may never be evicted."""
    idle: bool = True
    spare: bool = False
    """Whether its model has another one that serves on when it goes."""
    used_at: float = 0.0

    @property
    def cost(self) -> tuple[bool, bool, float, int]:
        """What sorts the cheapest to evict first: idle, spare, then the least recently used."""
        return (not self.idle, not self.spare, self.used_at, self.server)


class Planner(ABC):
    """Says what must go so that a model can come. Pure: the same question, the same answer."""

    __slots__ = ()

    @abstractmethod
    def plan(self, target: ModelTerms, held: Sequence[Held]) -> frozenset[int] | None:
        """Return the numbers of the cheapest servers to evict so that ``target`` may start.

        Empty: it may start beside all of ``held``. ``None``: nothing that may go *now* would
        make room. Only movable ones are named. ``held`` has the cheapest to evict first
        (``Held.cost``). It may have servers of ``target`` itself: each needs a place of its
        own, but a model is never in conflict with itself.

        Raises:
            DoesNotFit, NoRoom: it could not start even with all gone but the pinned ones.
        """

    def kind(self, target: ModelTerms) -> Hashable:
        """Return what a plan depends on beside ``held``: models of one kind get equal plans."""
        return target.model_id


def without(target: ModelTerms, unwanted: Iterable[Held], reason: str) -> frozenset[int] | None:
    """Return the numbers of ``unwanted``, all of which must go; ``None`` if one cannot now.

    Raises:
        NoRoom: one is pinned.
    """
    unwanted = list(unwanted)
    if pinned := {each.terms.name for each in unwanted if each.pinned}:
        raise NoRoom(target.name, tuple(sorted(pinned)), reason)
    if not all(each.movable for each in unwanted):
        return None
    return frozenset(each.server for each in unwanted)
