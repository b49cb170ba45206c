"""From what is said of planners, as plain data, to a planner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from gglib.errors import InvalidValue
from gglib.services.routing.planners import (
    CappedPlanner,
    CountPlanner,
    ExclusivePlanner,
    Group,
    GroupsPlanner,
    MatrixPlanner,
    MemoryPlanner,
    Planner,
)

__all__ = ["PLANNER_KEYS", "Planning", "Size", "planner_for"]

#: What a planner must be told, and no other heeds: planner to key.
PLANNER_KEYS = {"groups": "groups", "matrix": "matrix", "memory": "budgets"}
_GROUP_KEYS = {"members", "swap", "exclusive", "persistent"}
_MATRIX_KEYS = {"sets", "costs"}


class Planning(Protocol):
    """What is said of planners."""

    @property
    def planner(self) -> str:
        """``exclusive``, ``count``, ``groups``, ``matrix`` or ``memory``."""

    @property
    def groups(self) -> Mapping[str, Any]:
        """For ``groups``: name to ``members``, ``swap``, ``exclusive``, ``persistent``."""

    @property
    def matrix(self) -> Mapping[str, Any]:
        """For ``matrix``: ``sets`` and ``costs``."""


class Size(Protocol):
    """How many models there may be at once."""

    @property
    def max_size(self) -> int:
        """Whatever the planner says."""


def planner_for(planning: Planning, size: Size, budgets: Mapping[str, int]) -> Planner:
    """Return the planner that is asked for; ``budgets`` is read anew for every plan.

    Raises:
        InvalidValue: it is not told what it needs, or wrongly; ``field`` begins with the key.
    """
    planner: Planner
    match planning.planner:
        case "exclusive":
            return ExclusivePlanner()
        case "count":
            return CountPlanner(size.max_size)
        case "groups":
            if not planning.groups:
                expected = "[routing.groups.NAME]; planner = 'exclusive' has one model at a time"
                raise InvalidValue("groups", {}, expected)
            planner = GroupsPlanner(_group(name, each) for name, each in planning.groups.items())
        case "matrix":
            planner = _matrix(planning.matrix)
        case _:
            planner = MemoryPlanner(budgets)
    return CappedPlanner(planner, size.max_size)


def _group(name: str, table: Any) -> Group:
    where = f"groups.{name}"
    _check_keys(where, table, _GROUP_KEYS)
    for key in ("swap", "exclusive", "persistent"):
        if not isinstance(table.get(key, True), bool):
            raise InvalidValue(f"{where}.{key}", table[key], "true or false")
    return Group(
        name=name,
        members=_names(f"{where}.members", table.get("members")),
        swap=table.get("swap", True),
        exclusive=table.get("exclusive", True),
        persistent=table.get("persistent", False),
    )


def _matrix(table: Mapping[str, Any]) -> MatrixPlanner:
    _check_keys("matrix", table, _MATRIX_KEYS)
    sets, costs = table.get("sets"), table.get("costs", {})
    if not isinstance(sets, list) or not sets:
        raise InvalidValue("matrix.sets", sets, "a list of lists of models")
    if not isinstance(costs, dict):
        raise InvalidValue("matrix.costs", costs, "a table of numbers")
    for name, cost in costs.items():
        if not isinstance(cost, int | float) or isinstance(cost, bool) or not cost >= 0:
            raise InvalidValue(f"matrix.costs.{name}", cost, "a number of 0 or more")
    named = [_names(f"matrix.sets[{number}]", each) for number, each in enumerate(sets)]
    return MatrixPlanner(named, costs=costs)


def _check_keys(where: str, table: Any, known: set[str]) -> None:
    if not isinstance(table, Mapping):
        raise InvalidValue(where, table, f"a table, [routing.{where}]")
    for key in table:
        if key not in known:
            raise InvalidValue(where, key, f"keys among {', '.join(sorted(known))}")


def _names(where: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(x, str) for x in value):
        raise InvalidValue(where, value, "a list of names of models")
    return tuple(value)
