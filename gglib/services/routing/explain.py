"""Why a model is in memory, why it was evicted, why it waits: one model's story, as a value."""

from __future__ import annotations

import attrs

from gglib.services.routing.state import Closing, ModelState, NoteKind, ResidentPhase

__all__ = ["Event", "Explanation", "explain"]


@attrs.frozen(kw_only=True)
class Event:
    """One decision about a model, or something that happened to it."""

    what: NoteKind
    ago_s: float
    because: str | None
    """The other model that it was for, or the reason."""


@attrs.frozen(kw_only=True)
class Explanation:
    """What is known of a model's place. Times are seconds from now; past ones are negative."""

    model: str
    phase: ResidentPhase | None
    """``None``: it has no server."""
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
    """Why it takes no more requests."""
    claimed_by: str | None
    """The model that will get its place."""
    yields_in_s: float | None
    """When it stops taking requests for that one's sake."""
    expected_load_s: float
    events: tuple[Event, ...]
    """The latest, the oldest first."""


def explain(model: ModelState, now: float) -> Explanation:
    """Return the story of ``model``."""
    resident = model.resident
    head = model.line.head()
    claim_due_at = resident.claim_due_at if resident is not None else None
    return Explanation(
        model=model.terms.name,
        phase=resident.phase if resident is not None else None,
        pinned=model.pinned,
        in_flight=resident.in_flight if resident is not None else 0,
        queued=model.line.count,
        waited_s=now - head.arrived if head is not None else None,
        blocked_by=model.blocked_by,
        blocked_until_s=model.due_at - now if model.due_at is not None else None,
        closing=resident.closing if resident is not None else None,
        claimed_by=resident.claimant if resident is not None else None,
        yields_in_s=claim_due_at - now if claim_due_at is not None else None,
        expected_load_s=model.expected_load_s,
        events=tuple(
            Event(what=note.kind, ago_s=now - note.at, because=note.because) for note in model.notes
        ),
    )
