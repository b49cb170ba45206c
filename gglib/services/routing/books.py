"""Who has a place, who waits, and what is in flight: one scheduler's books.

Whatever is decided is put on ``actions``, in the order in which it must be carried out.
"""

from __future__ import annotations

from itertools import count

from gglib.errors import GglibError
from gglib.services.routing.actions import Action, Grant, Reject, Stop
from gglib.services.routing.line import Waiter
from gglib.services.routing.sessions import Sessions
from gglib.services.routing.state import Closing, ModelState, Resident, ResidentPhase, Tally
from gglib.services.routing.terms import ModelTerms

__all__ = ["Books"]

#: The weight of the latest one in the mean time between two grants.
_SMOOTHING = 0.1


class Books:
    """Residents and waiters, and what makes the one serve the others."""

    __slots__ = (
        "_granted_at",
        "_servers",
        "_sessions",
        "actions",
        "away",
        "grant_every_s",
        "leases",
        "residents",
        "tally",
        "waiters",
        "wanted",
    )

    def __init__(self) -> None:
        self.residents: dict[int, Resident] = {}
        """What has memory, by number of the server."""
        self.waiters: dict[int, tuple[Waiter, ModelState]] = {}
        self.leases: dict[int, tuple[Resident, int]] = {}
        """What is in flight, by ticket: where, and of what priority."""
        self.wanted: dict[int, ModelState] = {}
        """Models that somebody waits for and that have no server, by id."""
        self.grant_every_s = 1.0
        """How often somebody leaves the queue for a server, as of late."""
        self.actions: list[Action] = []
        self.away: dict[str | None, float] = {}
        """Runners whose machine could not be reached, and until when that is held to be so."""
        self._granted_at = 0.0
        self._servers = count(1)
        self._sessions = Sessions()
        self.tally = Tally()

    # Residents

    def enter(self, model: ModelState, terms: ModelTerms, now: float) -> Resident:
        """Give ``model`` a place on the runner that ``terms`` name, and return it."""
        resident = Resident(next(self._servers), model, terms, now)
        self.residents[resident.server] = resident
        model.residents.append(resident)
        model.swap = None
        model.due_at = None
        model.blocked_by = ()
        self.wanted.pop(model.terms.model_id, None)
        return resident

    def leave(self, resident: Resident) -> None:
        """Take a place back: its server is gone."""
        if resident.ready_at is not None:
            self.tally.evictions[resident.closing or "died"] += 1
        resident.model.away -= resident.is_away
        resident.phase = ResidentPhase.GONE
        del self.residents[resident.server]
        resident.model.residents.remove(resident)
        if not resident.model.residents:
            resident.model.keep_s = None
        self.review(resident.model)

    def close(self, resident: Resident, why: Closing, now: float) -> None:
        """Have a resident take nothing more, and go once nothing is in flight."""
        if resident.closing is None or why is not Closing.SWAP:
            if resident.closing is None:
                resident.closing_since = now
            resident.closing = why
        self.stop_if_drained(resident, now)

    def stop_if_drained(self, resident: Resident, now: float) -> None:
        """Stop a resident that closes of itself, if it has served whom it must.

        One that closes for a swap goes together with the other victims: see ``Swapping``.
        """
        held_up = resident.phase in (ResidentPhase.STARTING, ResidentPhase.AWAY)
        if (held_up and resident.closing is not None) or (
            resident.phase is ResidentPhase.READY
            and resident.closing not in (None, Closing.SWAP)
            and not resident.in_flight
            and resident.next_in_line() is None
        ):
            self.stop(resident, now)

    def stop(self, resident: Resident, now: float) -> None:
        """Stop a resident now, whatever it does. Once is enough."""
        if resident.phase in (ResidentPhase.STOPPING, ResidentPhase.GONE):
            return
        resident.model.away -= resident.is_away
        resident.phase = ResidentPhase.STOPPING
        resident.stopping_since = now
        cut = resident.closing if resident.in_flight else None
        spares = resident.closing in (Closing.SURPLUS, Closing.CHANGED)
        self.actions.append(Stop(resident.server, resident.model.terms.model_id, cut, spares))

    def least_useful(self, runner: str | None) -> Resident | None:
        """Return the idle resident of a runner that was used longest ago, if one may go."""
        idle = [
            resident
            for resident in self.residents.values()
            if resident.takes_requests
            and resident.is_idle
            and not resident.model.pinned
            and resident.terms.runner == runner
        ]
        return min(idle, key=lambda each: each.used_at, default=None)

    # Waiters

    def wait(self, waiter: Waiter, model: ModelState) -> None:
        """Put a request in line."""
        if not self.waiters:
            self._granted_at = waiter.arrived
        model.line.add(waiter)
        self.waiters[waiter.ticket] = (waiter, model)
        self.review(model)

    def forget(self, waiter: Waiter, model: ModelState) -> None:
        """Take a request out of its line."""
        del self.waiters[waiter.ticket]
        model.line.remove(waiter)
        self.review(model)

    def reject_all(self, model: ModelState, error: GglibError) -> None:
        """Refuse whoever waits for a model."""
        for waiter in list(model.line):
            self.forget(waiter, model)
            self.actions.append(Reject(waiter.ticket, error))
        model.trials.begin_anew()

    def review(self, model: ModelState) -> None:
        """Note whether a model is wanted; if no longer, call off what happens for its sake."""
        if model.is_wanted:
            self.wanted[model.terms.model_id] = model
            return
        if self.wanted.pop(model.terms.model_id, None) is not None:
            model.due_at = None
            model.blocked_by = ()
            self.call_off(model)

    def call_off(self, model: ModelState) -> None:
        """Let those who close for a model's sake go on, where they still can."""
        swap, model.swap = model.swap, None
        for victim in swap.victims if swap is not None else ():
            if victim.closing is Closing.SWAP and victim.phase is ResidentPhase.READY:
                victim.closing = None
            victim.swap = None

    # Grants

    def try_occupy(
        self, model: ModelState, ticket: int, priority: int, now: float, session: str | None
    ) -> int | None:
        """Have the best of a model's servers that may take a request that arrives now do so."""
        residents = model.residents
        if len(residents) > 1:
            residents = self._in_order(model, session)
        for resident in residents:
            if resident.admits(priority, now):
                self._occupy(resident, ticket, priority, now)
                if session is not None:
                    self._remember(resident, session)
                self.tally.hits += 1
                return resident.server
        return None

    def serve(self, model: ModelState, now: float) -> None:
        """Grant what the servers of a model can take, in order; stop those that are done."""
        while (head := model.line.head()) is not None:
            residents = model.residents
            if len(residents) > 1:
                residents = self._in_order(model, head.session)
            for resident in residents:
                if self._serve_next(resident, now):
                    break
            else:
                break
        for resident in model.residents:
            if resident.closing is not None:
                self.stop_if_drained(resident, now)

    def _in_order(self, model: ModelState, session: str | None) -> list[Resident]:
        """Return a model's servers: the session's own first, then the least busy.

        Of equals, the one with the lowest number: it is always the same, so that under little
        load the others idle, and go.
        """
        own = None
        if session is not None:
            own = self._sessions.server_of(model.terms.model_id, session)
        return sorted(model.residents, key=lambda each: (each.server != own, each.in_flight))

    def _serve_next(self, resident: Resident, now: float) -> bool:
        if resident.phase is not ResidentPhase.READY:
            return False
        head = resident.next_in_line()
        if head is None or not resident.may_take(head, now):
            return False
        self.forget(head, resident.model)
        self.grant_every_s += _SMOOTHING * (now - self._granted_at - self.grant_every_s)
        self._granted_at = now
        if not head.loads_only:
            self._occupy(resident, head.ticket, head.priority, now)
            if head.session is not None:
                self._remember(resident, head.session)
        self.actions.append(Grant(head.ticket, resident.server))
        return True

    def _occupy(self, resident: Resident, ticket: int, priority: int, now: float) -> None:
        """Count a request as in flight."""
        resident.in_flight += 1
        resident.requests += 1
        resident.levels[priority] = resident.levels.get(priority, 0) + 1
        resident.used_at = now
        self.leases[ticket] = (resident, priority)

    def _remember(self, resident: Resident, session: str) -> None:
        """Note which server a session has used."""
        terms = resident.model.terms
        if terms.replicas > 1:
            self._sessions.note(terms.model_id, session, resident.server)
