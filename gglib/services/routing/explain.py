"""Why a model is in memory, why it was evicted, why it waits: one model's story, as a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import attrs

from gglib.services.routing.state import Closing, ModelState, NoteKind, Resident, ResidentPhase

__all__ = ["Event", "Explanation", "RunnerStory", "explain"]

_NOTHING: Mapping[str, str] = MappingProxyType({})


@attrs.frozen(kw_only=True)
class Event:
    """One decision about a model, or something that happened to it."""

    what: NoteKind
    ago_s: float
    because: str | None
    """The other model that it was for, or the reason."""
    runner: str | None
    """Where, if the model has several runners."""


@attrs.frozen(kw_only=True)
class RunnerStory:
    """One of the runners where a model's servers may run."""

    runner: str
    servers: tuple[ResidentPhase, ...]
    """The phases of its servers there, the oldest first."""
    why_not: str | None
    """Why the last start there failed, or none could be tried."""


@attrs.frozen(kw_only=True)
class Explanation:
    """What is known of a model's place. Times are seconds from now; past ones are negative."""

    model: str
    phase: ResidentPhase | None
    """Of its servers, the one that is best off; ``None``: it has none."""
    servers: int
    replicas: int
    """The most servers that it may have."""
    pinned: bool
    in_flight: int
    queued: int
    waited_s: float | None
    """How long the next of those that wait has waited."""
    blocked_by: tuple[str, ...]
    """Models that must go before it can start."""
    blocked_until_s: float | None
    """When those stop taking requests for its sake, if they are at work until then."""
    closing: Closing | None
    """Why it takes no more requests; ``None`` while one of its servers does."""
    claimed_by: str | None
    """The model that will get the place of one of its servers."""
    yields_in_s: float | None
    """When that one stops taking requests for that model's sake."""
    expected_load_s: float
    runners: tuple[RunnerStory, ...]
    """In the order in which they are tried."""
    events: tuple[Event, ...]
    """The latest, the oldest first."""


def explain(
    model: ModelState,
    now: float,
    *,
    runners: Sequence[str] = (),
    unplaced: Mapping[str, str] = _NOTHING,
) -> Explanation:
    """Return the story of ``model``.

    ``runners``: all that it may have. ``unplaced``: those of which it is not known what it needs
    there, and why.
    """
    failed = {**model.trials.reasons(), **unplaced}
    residents = sorted(model.residents, key=_well_off)
    best = residents[0] if residents else None
    head = model.line.head()
    claimed = next((each for each in residents if each.claim_due_at is not None), None)
    yields_at = claimed.claim_due_at if claimed is not None else None
    return Explanation(
        model=model.terms.name,
        phase=best.phase if best is not None else None,
        servers=len(residents),
        replicas=model.terms.replicas,
        pinned=model.pinned,
        in_flight=sum(each.in_flight for each in residents),
        queued=model.line.count,
        waited_s=now - head.arrived if head is not None else None,
        blocked_by=model.blocked_by,
        blocked_until_s=model.due_at - now if model.due_at is not None else None,
        closing=best.closing if best is not None else None,
        claimed_by=claimed.claimant if claimed is not None else None,
        yields_in_s=yields_at - now if yields_at is not None else None,
        expected_load_s=model.expected_load_s,
        runners=tuple(
            RunnerStory(
                runner=runner,
                servers=tuple(
                    each.phase for each in model.residents if each.terms.runner == runner
                ),
                why_not=failed.get(runner),
            )
            for runner in runners
        ),
        events=tuple(
            Event(what=note.kind, ago_s=now - note.at, because=note.because, runner=note.runner)
            for note in model.notes
        ),
    )


def _well_off(resident: Resident) -> tuple[bool, bool, bool]:
    """Sort those that take requests first, then those that are ready, then those that will be."""
    return (
        not resident.takes_requests,
        resident.phase is not ResidentPhase.READY,
        resident.phase is not ResidentPhase.STARTING,
    )
