"""Who is served when: a synchronous state machine without I/O, clock, task or log.

Events are method calls, in; actions are values, out, in the order in which they must be
carried out. ``now`` is always the same clock's monotonic seconds. The rules, each told where
it is decided:

- One start serves all who wait for its model. What fits beside what runs is started.
- What does not fit waits until those in its way yield. An idle one yields at once. One at work
  goes on serving for as long as the oldest waiter's patience lasts, which is in proportion to
  what the swap costs; then it ends what it has in flight, and goes. Nothing is cut.
- Whoever waited for a model when it became ready is served before it yields to its equals
  (the gate): no swap is wasted, and ABCABC becomes AABBCC.
- Higher priority goes first, then age. A higher one does not wait for a lower one's patience,
  and a lower one waits for as long as there are higher ones.
- A model may have several servers, and one line for all. A further one starts when somebody
  waits and those it has are full, if it fits beside what is there and no other model waits for a
  place. Places, claims and idleness are each server's own.
- A model may have several runners. A server of it is started on the first whose machine answers
  and where it fits, the next one if it fails there; further servers prefer one that has none. A
  server to which there is no way keeps its place, and does not count as one of the model's.
- Every ticket ends exactly once: by a rejection, by ``request_gone``, or by a grant and then
  ``request_finished``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count

from gglib.errors import GglibError, NodeUnreachable, ShuttingDown, Unloaded
from gglib.services.routing.actions import Action, Await, Grant, Reject, Start, Stop
from gglib.services.routing.books import Books
from gglib.services.routing.line import Waiter
from gglib.services.routing.planners import Planner
from gglib.services.routing.refusals import refusal_of
from gglib.services.routing.state import (
    Closing,
    ModelState,
    NoteKind,
    Resident,
    ResidentPhase,
    Tally,
)
from gglib.services.routing.swapping import Swapping
from gglib.services.routing.terms import ModelTerms, Policy
from gglib.services.routing.trials import AWAY_S

__all__ = [
    "Action",
    "Await",
    "Grant",
    "ModelTerms",
    "Policy",
    "Reject",
    "Resident",
    "ResidentPhase",
    "Scheduler",
    "Start",
    "Stop",
]

#: Looked at for every request: an enum takes a while to name its members.
_READY = ResidentPhase.READY
_BREAKER_MAX_S = 60.0
#: A server that ran this long was no crash at the start.
_STABLE_S = 10.0


class Scheduler:
    """Decides. Every method returns the actions that follow; none waits."""

    __slots__ = (
        "_arrivals",
        "_books",
        "_models",
        "_places",
        "_policy",
        "_shut",
        "_shut_at",
        "deadline",
    )

    def __init__(self, planner: Planner, policy: Policy | None = None) -> None:
        self._policy = policy or Policy()
        self._books = Books()
        self._places = Swapping(self._books, planner, self._policy)
        self._models: dict[int, ModelState] = {}
        self._arrivals = count()
        self._shut = False
        self._shut_at = math.inf
        self.deadline = math.inf
        """No later than what ``next_deadline`` would say, at a glance."""

    # What is

    @property
    def residents(self) -> list[Resident]:
        """What has memory, is getting it, or is giving it back; the oldest first. Read only."""
        return list(self._books.residents.values())

    def resident(self, server: int) -> Resident | None:
        """Return the resident with that number. Read only."""
        return self._books.residents.get(server)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is resident and nobody waits."""
        return not self._books.residents and not self._books.waiters

    def state(self, model_id: int) -> ModelState | None:
        """Return what is known of a model that was asked for. Read only."""
        return self._models.get(model_id)

    def queued(self, model_id: int) -> int:
        """Return how many wait for a model."""
        model = self._models.get(model_id)
        return model.line.count if model else 0

    def queue(self) -> Iterator[Waiter]:
        """Yield all who wait, in the order in which they stand now."""
        lines = {id(model): model.line for _, model in self._books.waiters.values()}
        waiting = [waiter for line in lines.values() for waiter in line]
        best = {waiter.model_id: (-waiter.priority, waiter.number) for waiter in reversed(waiting)}
        yield from sorted(
            waiting, key=lambda each: (best[each.model_id], -each.priority, each.number)
        )

    def next_deadline(self) -> float | None:
        """Return when ``time_passed`` must be called at the latest, if nothing happens before."""
        deadline = min(self._places.due_at, self._shut_at)
        for resident in self._books.residents.values():
            deadline = min(deadline, self.expires_at(resident), self._cut_at(resident))
        self.deadline = deadline
        return None if deadline == math.inf else deadline

    @property
    def tally(self) -> Tally:
        """What has happened so far, counted. Read only."""
        return self._books.tally

    def expires_at(self, resident: Resident) -> float:
        """Return when a resident goes for idleness, if nobody uses it; infinity = never."""
        if not resident.takes_requests or not resident.is_idle:
            return math.inf
        return resident.used_at + self.may_idle_s(resident)

    def may_idle_s(self, resident: Resident) -> float:
        """Return how long a resident may idle before it goes; infinity = for ever."""
        model = resident.model
        if model.pinned:
            return math.inf
        if model.keep_s is not None:
            return model.keep_s
        if model.terms.ttl_s is None or (self._policy.min_size and self._is_kept(resident)):
            return math.inf
        return model.terms.ttl_s

    # Requests

    def try_grant(
        self,
        ticket: int,
        terms: ModelTerms,
        now: float,
        priority: int | None = None,
        session: str | None = None,
    ) -> int | None:
        """Grant a request that arrives now if it may go straight to a server of its model.

        Returns the server's number: the request is then in flight there; nothing else follows.
        """
        model = self._models.get(terms.model_id)
        if model is None or model.line.count:
            return None
        rank = terms.priority if priority is None else priority
        return self._books.try_occupy(model, ticket, rank, now, session)

    def request_arrived(
        self,
        ticket: int,
        terms: ModelTerms,
        now: float,
        *,
        priority: int | None = None,
        session: str | None = None,
        loads_only: bool = False,
    ) -> list[Action]:
        """Take a request for a model.

        ``session``: goes to the server that its session used last, if that has room.
        ``loads_only``: it wants the model ready, as an administrator does. Neither a full
        queue nor a start that failed a moment ago holds it up, and its grant is its end.
        """
        if self._shut:
            return [Reject(ticket, ShuttingDown())]
        model = self._known(terms)
        rank = terms.priority if priority is None else priority
        if loads_only:
            model.trials.forgive()
            model.not_before = 0.0
        elif (server := self.try_grant(ticket, terms, now, rank, session)) is not None:
            return [Grant(ticket, server)]
        elif (refusal := refusal_of(model, self._books, self._policy, now)) is not None:
            return [Reject(ticket, refusal)]
        if not loads_only:
            tally = self._books.tally
            if any(each.takes_requests for each in model.residents):
                tally.hits += 1
            else:
                tally.misses += 1
        before = model.line.head()
        number = next(self._arrivals)
        waiter = Waiter(ticket, terms.model_id, rank, number, now, loads_only, session)
        if before is None:
            model.trials.begin_anew()
        self._books.wait(waiter, model)
        if model.servers:
            self._books.serve(model, now)
            self._places.grow(model, now)
        elif loads_only or before is None or rank > before.priority:
            self._places.advance(now)
        return self._taken()

    def request_gone(self, ticket: int, now: float) -> list[Action]:
        """Forget a request whose client has left, wherever it stands."""
        found = self._books.waiters.get(ticket)
        if found is None:
            return self.request_finished(ticket, now)
        waiter, model = found
        was_head = model.line.head() is waiter
        self._books.forget(waiter, model)
        starting = model.starting
        if starting is not None and not model.line and not self._policy.finish_loads:
            # Nobody waits for it any more: the load would only keep others waiting.
            model.note(now, NoteKind.CALLED_OFF)
            self._books.stop(starting, now)
        if any(each.phase is ResidentPhase.READY for each in model.residents):
            self._after_change(model, now)
        elif was_head:
            self._places.advance(now)
        return self._taken()

    def request_finished(self, ticket: int, now: float) -> list[Action]:
        """Count a granted request as done. Tickets that are not in flight are ignored."""
        found = self._books.leases.pop(ticket, None)
        if found is None:
            return []
        resident, priority = found
        resident.in_flight -= 1
        levels = resident.levels
        left = levels[priority] - 1
        if left:
            levels[priority] = left
        else:
            del levels[priority]
        if resident.phase is not _READY:
            if resident.is_away:
                # Somebody may wait for its place, and it answers nothing any more.
                self._places.advance(now)
            return self._taken()
        resident.used_at = now
        if not self._books.wanted and not resident.model.line and resident.closing is None:
            if self._policy.min_size:
                # Another may have lost its place among the latest used.
                self.deadline = -math.inf
            elif not resident.in_flight:
                self.deadline = min(self.deadline, now + self.may_idle_s(resident))
            return []
        self.deadline = -math.inf
        self._after_change(resident.model, now, level_fell=not left)
        return self._taken()

    # Servers

    def server_ready(self, server: int, now: float, *, slots: int | None = None) -> list[Action]:
        """A server answers; it serves ``slots`` requests at once (``None``: any number)."""
        resident = self._at(server, ResidentPhase.STARTING)
        if resident is None:
            return []
        model = resident.model
        self._books.tally.loads += 1
        model.load_s = now - resident.started_at
        model.retried = False
        model.note_at(resident.terms.runner, now, NoteKind.READY)
        self._open(resident, now, slots)
        return self._taken()

    def server_failed(
        self, server: int, error: GglibError, now: float, *, out_of_memory: bool = False
    ) -> list[Action]:
        """A start failed: it is tried on the model's next runner.

        Without one all fail who waited for it, if their model has no other server. One that
        failed for want of memory is tried once more, if an idle server can go for it; but
        nobody goes for a further server of a model.
        """
        resident = self._books.residents.get(server)
        if resident is None:
            return []
        if resident.phase is not ResidentPhase.STARTING:
            return self.server_stopped(server, now)
        model = resident.model
        runner = resident.terms.runner
        self._books.tally.failed[model.terms.name] += 1
        self._books.leave(resident)
        model.note_at(runner, now, NoteKind.FAILED, str(error))
        if isinstance(error, NodeUnreachable):
            self._books.away[runner] = now + AWAY_S
        may_retry = out_of_memory and not model.retried
        spare = self._books.least_useful(runner) if may_retry else None
        if spare is not None and model.is_wanted:
            model.retried = True
            self._places.make_room(model, resident.terms, spare, now)
        else:
            model.retried = False
            model.trials.failed(runner, error, now, wanted=model.is_wanted)
            if model.is_wanted and not self._places.spots_left(model, now):
                self._books.reject_all(model, model.trials.why_not(model.terms))
        self._places.advance(now)
        return self._taken()

    def server_died(self, server: int, now: float) -> list[Action]:
        """A ready server is gone. Those who wait get another; what was in flight knows already."""
        resident = self._books.residents.get(server)
        if resident is None:
            return []
        if resident.phase is ResidentPhase.STOPPING:
            return self.server_stopped(server, now)
        if resident.is_away:
            # Somebody is there to tell.
            self._books.away.pop(resident.terms.runner, None)
        else:
            _count_crash(resident, now)
            if resident.closing is None:
                resident.model.lost = "died"
        resident.closing = None
        self._books.leave(resident)
        resident.model.note(now, NoteKind.DIED)
        self._places.advance(now)
        return self._taken()

    def server_unhealthy(self, server: int, now: float) -> list[Action]:
        """A ready server no longer answers: it is ended, whatever it does. Waiters get a new one.

        As with one that died: the third in a row within seconds is not started at once.
        """
        resident = self._at(server, ResidentPhase.READY)
        if resident is None:
            return []
        _count_crash(resident, now)
        resident.model.note(now, NoteKind.UNHEALTHY)
        resident.model.lost = "unhealthy"
        resident.closing = Closing.UNHEALTHY
        self._books.stop(resident, now)
        return self._taken()

    def server_away(self, server: int, error: GglibError, now: float) -> list[Action]:
        """There is no way to a ready server: its model is served elsewhere, if it can be.

        So are those of all models with servers on that runner. A model without another runner
        waits for its own: nothing changes for it.
        """
        lost = self._books.residents.get(server)
        if lost is None:
            return []
        runner = lost.terms.runner
        self._books.away[runner] = now + AWAY_S
        for resident in list(self._books.residents.values()):
            if resident.terms.runner == runner and resident.phase is ResidentPhase.READY:
                self._set_away(resident, error, now)
        self._places.advance(now)
        return self._taken()

    def server_back(self, server: int, now: float) -> list[Action]:
        """There is a way to a server again: it serves, or goes if others have taken its place."""
        resident = self._at(server, ResidentPhase.AWAY)
        if resident is None:
            return []
        model, runner = resident.model, resident.terms.runner
        self._books.away.pop(runner, None)
        model.trials.succeeded(runner)
        model.note_at(runner, now, NoteKind.BACK)
        at_work = sum(not (each.is_away or each.is_leaving) for each in model.residents)
        starting = model.starting
        if at_work >= model.terms.replicas and starting is None:
            resident.closing = Closing.SURPLUS
            self._books.stop(resident, now)
            return self._taken()
        if at_work >= model.terms.replicas and starting is not None:
            model.note_at(starting.terms.runner, now, NoteKind.CALLED_OFF)
            self._books.stop(starting, now)
        resident.phase = ResidentPhase.READY
        model.away -= 1
        resident.used_at = now
        # Its model may have been changed meanwhile.
        resident.set_capacity()
        if model.retired:
            self._books.close(resident, Closing.CHANGED, now)
        self._books.review(model)
        self._books.serve(model, now)
        self._places.advance(now)
        return self._taken()

    def server_stopped(self, server: int, now: float) -> list[Action]:
        """A server is gone, as asked."""
        resident = self._at(server, ResidentPhase.STOPPING)
        if resident is None:
            return []
        if resident.ready_at is not None:
            resident.model.stop_s = now - resident.stopping_since
        self._books.leave(resident)
        self._places.advance(now)
        return self._taken()

    def take_over(
        self,
        terms: ModelTerms,
        now: float,
        *,
        spot: ModelTerms | None = None,
        slots: int | None = None,
    ) -> tuple[int, list[Action]] | None:
        """Make a server that runs already a resident: its number, and what follows.

        ``spot``: the model's terms where it runs, if that is not the first of its runners.
        ``None``: its model has as many as it may have, or the scheduler shuts down.
        """
        model = self._known(terms)
        if self._shut:
            return None
        if model.servers >= terms.replicas:
            starting = model.starting
            if starting is None:
                return None
            model.note_at(starting.terms.runner, now, NoteKind.CALLED_OFF)
            self._books.stop(starting, now)
        self._books.call_off(model)
        resident = self._books.enter(model, terms if spot is None else spot, now)
        model.note_at(resident.terms.runner, now, NoteKind.TAKEN_OVER)
        self._open(resident, now, slots)
        return resident.server, self._taken()

    # What an administrator asks for

    def unload(self, model_id: int, now: float, *, cut: bool = False) -> list[Action]:
        """Let a model go, all its servers; its waiters get an error.

        ``cut``: what is in flight is not waited for.

        A later request starts it again.
        """
        model = self._models.get(model_id)
        if model is None:
            return []
        self._books.reject_all(model, Unloaded(model.terms.name))
        present = [each for each in model.residents if each.phase is not ResidentPhase.STOPPING]
        if present:
            model.note(now, NoteKind.UNLOADED)
        for resident in present:
            self._books.close(resident, Closing.UNLOAD, now)
            if cut:
                self._books.stop(resident, now)
        self._places.advance(now)
        return self._taken()

    def unload_all(self, now: float, *, cut: bool = False) -> list[Action]:
        """Let every model go."""
        models = [model for model in self._models.values() if model.residents or model.line]
        return [
            action for model in models for action in self.unload(model.terms.model_id, now, cut=cut)
        ]

    def drain(self, model_id: int, now: float) -> list[Action]:
        """Let a model go when all who wait for it now are served. Later ones start it again."""
        model = self._models.get(model_id)
        if model is None:
            return []
        there = (ResidentPhase.READY, ResidentPhase.AWAY)
        present = [each for each in model.residents if each.phase in there]
        if not present:
            return []
        model.note(now, NoteKind.UNLOADED)
        for resident in present:
            self._see_out(resident, Closing.DRAIN, now)
        if model.starting is not None:
            self._books.stop(model.starting, now)
        self._places.advance(now)
        return self._taken()

    # What a new configuration says

    def set_policy(self, policy: Policy, planner: Planner, now: float) -> list[Action]:
        """Play by other rules from now on. Swaps under way go on; nobody is thrown out."""
        self._policy = policy
        self._places.set_policy(policy, planner)
        self._places.advance(now)
        return self._taken()

    def change(self, terms: ModelTerms, now: float, *, afresh: bool = False) -> list[Action]:
        """Take note that a model is to be treated otherwise; at once, for whoever waits, too.

        ``afresh``: it is served otherwise, so that starts that failed tell nothing of the next.
        Servers that will not do any more: see ``model_changed``.
        """
        if terms.model_id not in self._models:
            return []
        model = self._known(terms)
        model.retired = False
        if afresh:
            model.trials.forgive()
            model.not_before = 0.0
        ready = [each for each in model.residents if each.phase is ResidentPhase.READY]
        for resident in ready:
            resident.set_capacity()
        at_work = sorted((each for each in ready if _stays(each)), key=_busyness)
        for resident in at_work[terms.replicas :]:
            self._see_out(resident, Closing.CHANGED, now)
        self._books.serve(model, now)
        self._places.advance(now)
        return self._taken()

    def set_retired(self, model_id: int, retired: bool) -> None:
        """Take note whether a model can be asked for: if not, a server that gets ready goes.

        It serves whoever waits, first. Those that are ready now: see ``model_changed``.
        """
        model = self._models.get(model_id)
        if model is not None:
            model.retired = retired

    def model_changed(self, server: int, now: float) -> list[Action]:
        """Let one server go whose model has changed: it serves who waits now, the next the rest."""
        resident = self._books.residents.get(server)
        if resident is None or resident.closing not in (None, Closing.SWAP):
            return []
        resident.model.note(now, NoteKind.CHANGED)
        if resident.phase is ResidentPhase.READY:
            self._see_out(resident, Closing.CHANGED, now)
            self._books.serve(resident.model, now)
        else:
            self._books.stop(resident, now)
        self._places.advance(now)
        return self._taken()

    # What is learnt

    def learn(self, terms: ModelTerms) -> None:
        """Take note that what is known of a model has changed: ``reconsider`` when all is told."""
        self._known(terms)

    def reconsider(self, now: float) -> list[Action]:
        """Look anew who can start: what the planner goes by has changed."""
        self._places.advance(now)
        return self._taken()

    def set_pinned(self, terms: ModelTerms, pinned: bool, now: float) -> list[Action]:
        """Pin a model, or let it go the way of all models."""
        model = self._known(terms)
        model.pinned = pinned
        if pinned:
            made_for = [each.swap for each in model.residents if each.closing is Closing.SWAP]
            for other in list(self._books.wanted.values()):
                if other.swap is not None and other.swap in made_for:
                    self._books.call_off(other)
        self._places.advance(now)
        return self._taken()

    def set_ttl(self, model_id: int, ttl_s: float | None, now: float) -> list[Action]:
        """Have a model's servers go after so long without work; ``None`` = never.

        That holds until it is said anew, or the last of them is gone. It is stronger than what
        the model and the policy say: somebody wants it so now. But what is pinned stays.
        """
        model = self._models.get(model_id)
        if model is None or not model.residents:
            return []
        model.keep_s = math.inf if ttl_s is None else ttl_s
        return self.time_passed(now)

    def shutdown(self, now: float, *, deadline: float = math.inf) -> list[Action]:
        """Accept nothing more, reject who waits, and let all go when done, or at ``deadline``."""
        self._shut = True
        self._shut_at = min(self._shut_at, deadline)
        self._places.shut_down(now)
        return [*self._taken(), *self.time_passed(now)]

    # Time

    def time_passed(self, now: float) -> list[Action]:
        """Do what has become due."""
        for resident in list(self._books.residents.values()):
            if self._shut_at <= now or self._cut_at(resident) <= now:
                self._books.stop(resident, now)
            elif self.expires_at(resident) <= now:
                resident.model.note(now, NoteKind.EXPIRED)
                self._books.close(resident, Closing.EXPIRED, now)
        if self._shut_at <= now:
            self._shut_at = math.inf
        if self._places.due_at <= now:
            self._places.advance(now)
        return self._taken()

    # How it is decided

    def _see_out(self, resident: Resident, why: Closing, now: float) -> None:
        """Have a ready server go when it has served whoever waits now."""
        resident.gate = next(self._arrivals)
        self._books.close(resident, why, now)

    def _known(self, terms: ModelTerms) -> ModelState:
        model = self._models.get(terms.model_id)
        if model is None:
            model = self._models[terms.model_id] = ModelState(terms, pinned=terms.pinned)
        elif model.terms is not terms:
            if model.terms.pinned != terms.pinned:
                model.pinned = terms.pinned
            model.terms = terms
            for resident in model.residents:
                resident.terms = terms.at(resident.terms.runner) or resident.terms
            if model.swap is not None:
                model.swap.terms = terms.at(model.swap.terms.runner) or terms
        return model

    def _taken(self) -> list[Action]:
        actions, self._books.actions = self._books.actions, []
        return actions

    def _at(self, server: int, phase: ResidentPhase) -> Resident | None:
        resident = self._books.residents.get(server)
        return resident if resident is not None and resident.phase is phase else None

    def _open(self, resident: Resident, now: float, slots: int | None) -> None:
        """Let a resident serve, those who wait already first."""
        self._books.away.pop(resident.terms.runner, None)
        resident.model.trials.succeeded(resident.terms.runner)
        resident.phase = ResidentPhase.READY
        resident.slots = slots
        resident.set_capacity()
        resident.ready_at = resident.used_at = now
        resident.gate = next(self._arrivals)
        if resident.model.retired:
            self._books.close(resident, Closing.CHANGED, now)
        self._books.serve(resident.model, now)
        if self._books.wanted:
            self._places.advance(now)
        else:
            self._places.grow(resident.model, now)

    def _set_away(self, resident: Resident, error: GglibError, now: float) -> None:
        """Have a ready server serve nobody until there is a way to it, if others may for it."""
        model, runner = resident.model, resident.terms.runner
        if all(spot.runner == runner for spot in model.terms.spots):
            return
        model.trials.on(runner).why_not = error
        model.note_at(runner, now, NoteKind.AWAY)
        if resident.closing is not None:
            # Nobody gets anything from it any more.
            self._books.stop(resident, now)
            return
        resident.phase = ResidentPhase.AWAY
        model.away += 1
        resident.claim_due_at = None
        resident.claimant = None
        self._books.actions.append(Await(resident.server))
        self._books.review(model)

    def _after_change(self, model: ModelState, now: float, *, level_fell: bool = False) -> None:
        """Something about the requests of ready servers has changed: grant, stop, or pass it on."""
        self._books.serve(model, now)
        if self._books.wanted and (
            level_fell or any(_may_yield_now(each, now) for each in model.residents)
        ):
            self._places.advance(now)

    def _is_kept(self, resident: Resident) -> bool:
        """Whether a resident is among those that outlive their idle time."""
        fresher = sum(
            each.takes_requests
            and (each.used_at, each.server) > (resident.used_at, resident.server)
            for each in self._books.residents.values()
        )
        return fresher < self._policy.min_size

    def _cut_at(self, resident: Resident) -> float:
        limit_s = self._policy.max_drain_s
        if limit_s is None or resident.closing is None or resident.phase is not ResidentPhase.READY:
            return math.inf
        return resident.closing_since + limit_s


def _count_crash(resident: Resident, now: float) -> None:
    """Count one more server that ended by itself; from the second in a row on, wait before more."""
    model = resident.model
    stable = resident.ready_at is not None and now - resident.ready_at >= _STABLE_S
    model.crashes = 1 if stable else model.crashes + 1
    if model.crashes > 1:
        model.not_before = now + min(_BREAKER_MAX_S, 2.0 ** min(model.crashes - 2, 10))


def _stays(resident: Resident) -> bool:
    """Whether it is ready, and nobody has told it to go; a swap may yet be called off."""
    return resident.phase is ResidentPhase.READY and resident.closing in (None, Closing.SWAP)


def _busyness(resident: Resident) -> tuple[int, int]:
    """Sort the busiest server first; of equals, the oldest."""
    return (-resident.in_flight, resident.server)


def _may_yield_now(resident: Resident, now: float) -> bool:
    """Whether a server has nothing more to do, or has done what it had to before it yields."""
    return not resident.in_flight or (
        resident.claim_due_at is not None
        and resident.claim_due_at <= now
        and not resident.gate_holds(resident.claim_priority)
    )
