"""As many servers as memory holds."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

from gglib.errors import DoesNotFit
from gglib.services.routing.planners.base import Held, Planner
from gglib.services.routing.terms import ModelTerms

__all__ = ["MemoryPlanner"]


class MemoryPlanner(Planner):
    """The needs of all servers together stay within ``budgets``: bytes, by device.

    A device without a budget has nothing to give. A model without needs fits everywhere.
    ``budgets`` is read anew for every plan: whoever measures may change it.
    """

    __slots__ = ("_budgets",)

    def __init__(self, budgets: Mapping[str, int]) -> None:
        self._budgets = budgets

    def plan(self, target: ModelTerms, held: Sequence[Held]) -> frozenset[int] | None:
        """See ``Planner``. What is evicted is minimal: without any one of it, it would not fit."""
        missing = self._missing(target, _sum(held))
        if missing:
            self._check(target, [each for each in held if each.pinned])
        chosen: list[Held] = []
        for each in held:
            if not missing:
                break
            if each.movable and _relieves(each, missing):
                chosen.append(each)
                _give_back(missing, each)
        if missing:
            return None
        if len(chosen) < 2:
            return frozenset(each.server for each in chosen)
        # A later, larger one may have made an earlier one's going needless; spare the dearest.
        kept = list(held)
        for each in chosen:
            kept.remove(each)
        for each in reversed(chosen[:]):
            if not self._missing(target, _sum([*kept, each])):
                chosen.remove(each)
                kept.append(each)
        return frozenset(each.server for each in chosen)

    def kind(self, target: ModelTerms) -> Hashable:
        """See ``Planner``: who needs the same."""
        return tuple(sorted(target.memory.items()))

    def _check(self, target: ModelTerms, pinned: Sequence[Held]) -> None:
        used = _sum(pinned)
        for device, needed in target.memory.items():
            available = self._budgets.get(device, 0) - used.get(device, 0)
            if needed > available:
                raise DoesNotFit(target.name, needed, max(0, available), device)

    def _missing(self, target: ModelTerms, used: Mapping[str, int]) -> dict[str, int]:
        """Return what is missing for ``target`` beside what is used, by device."""
        missing = {}
        for device, needed in target.memory.items():
            short = needed + used.get(device, 0) - self._budgets.get(device, 0)
            if needed > 0 and short > 0:
                missing[device] = short
        return missing


def _sum(held: Iterable[Held]) -> dict[str, int]:
    used: dict[str, int] = {}
    for each in held:
        for device, needed in each.terms.memory.items():
            used[device] = used.get(device, 0) + needed
    return used


def _relieves(held: Held, missing: Mapping[str, int]) -> bool:
    return any(held.terms.memory.get(device, 0) > 0 for device in missing)


def _give_back(missing: dict[str, int], held: Held) -> None:
    for device, freed in held.terms.memory.items():
        if device in missing:
            missing[device] -= freed
            if missing[device] <= 0:
                del missing[device]
