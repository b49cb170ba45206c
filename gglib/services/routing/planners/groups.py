"""Groups of models, as llama-swap has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from gglib.errors import InvalidValue
from gglib.services.routing.planners.base import Held, Planner, without
from gglib.services.routing.terms import ModelTerms

__all__ = ["Group", "GroupsPlanner"]


def _names(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(value)


@attrs.frozen(kw_only=True)
class Group:
    """Models that are treated alike, by the three switches that llama-swap's groups have."""

    name: str
    members: tuple[str, ...] = attrs.field(converter=_names)
    """Names of models."""
    swap: bool = True
    """Only one member at a time."""
    exclusive: bool = True
    """When a member starts, the models of other groups go, but for persistent ones."""
    persistent: bool = False
    """Its members stay when an exclusive group's member starts."""


#: Where models belong that no group names.
_REST = Group(name="(default)", members=())


class GroupsPlanner(Planner):
    """What may run together is said by groups; who is in none is in one that swaps."""

    __slots__ = ("_group_of",)

    def __init__(self, groups: Iterable[Group]) -> None:
        self._group_of: dict[str, Group] = {}
        for group in groups:
            for member in group.members:
                holder = self._group_of.setdefault(member, group)
                if holder is not group:
                    expected = f"members of one group only; it is in '{holder.name}' too"
                    raise InvalidValue("groups", member, expected)

    def plan(self, target: ModelTerms, held: Sequence[Held]) -> frozenset[int] | None:
        """See ``Planner``."""
        own = self._group_of.get(target.name, _REST)
        unwanted = [
            each
            for each in held
            if each.terms.model_id != target.model_id and self._must_go(own, each.terms.name)
        ]
        return without(target, unwanted, f"group '{own.name}' cannot run beside them")

    def _must_go(self, own: Group, other_name: str) -> bool:
        other = self._group_of.get(other_name, _REST)
        if other is own:
            return own.swap
        return own.exclusive and not other.persistent
