"""Estimates, corrected by what servers of the model have taken before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import ceil

import attrs

from gglib.domain.memory import MemoryEstimate, MemoryParts
from gglib.domain.validation import at_least

__all__ = [
    "KEPT_OBSERVATIONS",
    "LEAST_FACTOR",
    "MOST_FACTOR",
    "OBSERVATIONS_TO_LOWER",
    "MemoryObservation",
    "corrected_bytes",
    "corrected_estimate",
    "limited_to",
]

#: How far an estimate is moved for a configuration that was not itself observed.
LEAST_FACTOR, MOST_FACTOR = Fraction(1, 2), Fraction(2)
#: From so many on an estimate is lowered: one server may never have filled its context.
OBSERVATIONS_TO_LOWER = 3
#: So many of the newest count; what was before is another engine's.
KEPT_OBSERVATIONS = 16


@attrs.frozen(kw_only=True)
class MemoryObservation:
    """The most that one server took on one device, beside what the formula had said."""

    estimated_bytes: int = attrs.field(validator=at_least(1, optional=False))
    observed_bytes: int = attrs.field(validator=at_least(0, optional=False))


def corrected_bytes(estimated_bytes: int, observations: Iterable[MemoryObservation]) -> int:
    """Return ``estimated_bytes``, corrected by observations of the model, oldest first.

    1. Without observations it is what it was. The newest 16 count.
    2. It is multiplied by the largest ratio of observed to estimated, but at most by 2; and by
       less than 1 only from three observations on, and at least by one half.
    3. It is never below what was observed of a server with the same or a smaller estimate.

    So one server that took more raises all estimates of its model at once, and lowering them
    needs several that agree.
    """
    newest = list(observations)[-KEPT_OBSERVATIONS:]
    if not newest:
        return estimated_bytes
    factor = max(Fraction(each.observed_bytes, each.estimated_bytes) for each in newest)
    least = LEAST_FACTOR if len(newest) >= OBSERVATIONS_TO_LOWER else Fraction(1)
    factor = min(max(factor, least), MOST_FACTOR)
    seen = [each.observed_bytes for each in newest if each.estimated_bytes <= estimated_bytes]
    return max(ceil(estimated_bytes * factor), *seen, 0)


def corrected_estimate(
    estimate: MemoryEstimate, observations: Mapping[str, Iterable[MemoryObservation]]
) -> MemoryEstimate:
    """Return ``estimate``, corrected device by device; see ``corrected_bytes``.

    What a person has stated is not corrected. Where a device takes more, the difference is in
    its ``other_bytes``; where it takes less, every part shrinks alike.
    """
    if estimate.source == "stated":
        return estimate
    devices, changed = {}, False
    for name, parts in estimate.devices.items():
        before = parts.total_bytes
        after = corrected_bytes(before, observations.get(name, ()))
        devices[name] = _resized(parts, before, after)
        changed = changed or after != before
    if not changed:
        return estimate
    return attrs.evolve(estimate, devices=devices, source="observed")


def limited_to(estimate: MemoryEstimate, limits: Mapping[str, int]) -> MemoryEstimate:
    """Return ``estimate`` with no device held to need more than its limit, in bytes."""
    devices = {
        name: parts
        if parts.total_bytes <= limits.get(name, 0)
        else _resized(parts, parts.total_bytes, limits.get(name, 0))
        for name, parts in estimate.devices.items()
    }
    return attrs.evolve(estimate, devices=devices)


def _resized(parts: MemoryParts, before: int, after: int) -> MemoryParts:
    if after >= before:
        return attrs.evolve(parts, other_bytes=parts.other_bytes + after - before)
    weights, kv, compute = (
        each * after // before
        for each in (parts.weights_bytes, parts.kv_bytes, parts.compute_bytes)
    )
    return MemoryParts(
        weights_bytes=weights,
        kv_bytes=kv,
        compute_bytes=compute,
        other_bytes=after - weights - kv - compute,
    )
