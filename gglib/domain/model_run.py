"""What is remembered of one server of a model when it has ended."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import attrs

from gglib.domain.memory_observed import KEPT_OBSERVATIONS, MemoryObservation
from gglib.domain.validation import at_least

__all__ = ["KEPT_RUNS", "ModelRun"]

#: So many of a model's newest runs are kept.
KEPT_RUNS = KEPT_OBSERVATIONS


def _by_device(value: Mapping[str, MemoryObservation]) -> Mapping[str, MemoryObservation]:
    return MappingProxyType(dict(value))


@attrs.frozen(kw_only=True)
class ModelRun:
    """One server's life, in numbers."""

    ended_at: float
    """Unix seconds."""
    requests: int = attrs.field(validator=at_least(0, optional=False))
    """How many it was given."""
    memory: Mapping[str, MemoryObservation] = attrs.field(
        factory=dict, converter=_by_device, hash=False
    )
    """What it took, by device, where that was seen."""
