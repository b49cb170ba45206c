"""Why a request that arrives is not let in."""

from __future__ import annotations

from gglib.errors import BreakerOpen, GglibError, QueueFull
from gglib.services.routing.books import Books
from gglib.services.routing.state import ModelState, ResidentPhase
from gglib.services.routing.terms import Policy

__all__ = ["refusal_of"]

#: The official SDK does not wait longer before it tries again.
_RETRY_MAX_S = 120.0


def refusal_of(model: ModelState, books: Books, policy: Policy, now: float) -> GglibError | None:
    """Return why a request for ``model`` may not wait; ``None``: it may."""
    if model.trials and not model.servers:
        wait_s = model.trials.refused_until(model.terms) - now
        if wait_s > 0:
            failure = model.trials.why_not(model.terms)
            return BreakerOpen(model.terms.name, str(failure), wait_s)
    if len(books.waiters) >= policy.queue_limit:
        return QueueFull(model.terms.name, policy.queue_limit, _place_free_in_s(books, now))
    return None


def _place_free_in_s(books: Books, now: float) -> float:
    """Return when somebody is expected to leave the queue."""
    loads = [
        resident.model.expected_load_s - (now - resident.started_at)
        for resident in books.residents.values()
        if resident.phase is ResidentPhase.STARTING
    ]
    expected_s = min(loads) if loads else books.grant_every_s
    return min(_RETRY_MAX_S, max(1.0, expected_s))
