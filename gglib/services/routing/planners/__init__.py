"""Which models may be in memory together, and which go when another must come."""

from gglib.services.routing.planners.base import Held, Planner
from gglib.services.routing.planners.capped import CappedPlanner
from gglib.services.routing.planners.counted import CountPlanner, ExclusivePlanner
from gglib.services.routing.planners.groups import Group, GroupsPlanner
from gglib.services.routing.planners.matrix import MatrixPlanner
from gglib.services.routing.planners.memory import MemoryPlanner

__all__ = [
    "CappedPlanner",
    "CountPlanner",
    "ExclusivePlanner",
    "Group",
    "GroupsPlanner",
    "Held",
    "MatrixPlanner",
    "MemoryPlanner",
    "Planner",
]
