"""Who gets a place next, and who must go for it.

The books of one scheduler, and the decisions that concern more than one model. Whatever is
decided is put on ``actions``, in the order in which it must be carried out.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from itertools import count

from gglib.errors import GglibError, ShuttingDown
from gglib.services.routing.actions import Action, Grant, Reject, Start, Stop
from gglib.services.routing.line import Waiter
from gglib.services.routing.planners import Held, Planner
from gglib.services.routing.state import (
    Closing,
    ModelState,
    NoteKind,
    Resident,
    ResidentPhase,
    Swap,
)
from gglib.services.routing.terms import Policy

__all__ = ["Swapping"]

#: The weight of the latest one in the mean time between two grants.
_SMOOTHING = 0.1


class Swapping:
    """Residents, waiters, and the passage of places from one to another."""

    __slots__ = (
        "_granted_at",
        "_held",
        "_plans",
        "_servers",
        "actions",
        "due_at",
        "grant_every_s",
        "leases",
        "planner",
        "policy",
        "residents",
        "waiters",
        "wanted",
    )

    def __init__(self, planner: Planner, policy: Policy) -> None:
        self.planner = planner
        self.policy = policy
        self.residents: dict[int, Resident] = {}
        """What has memory, by number of the server."""
        self.waiters: dict[int, tuple[Waiter, ModelState]] = {}
        self.leases: dict[int, tuple[Resident, int]] = {}
        """What is in flight, by ticket: where, and of what priority."""
        self.wanted: dict[int, ModelState] = {}
        """Models that somebody waits for and that have no server, by id."""
        self.due_at = math.inf
        """When the next pass is due, if nothing happens before."""
        self.grant_every_s = 1.0
        """How often somebody leaves the queue for a server, as of late."""
        self.actions: list[Action] = []
        self._granted_at = 0.0
        self._held: dict[int, list[Held]] = {}
        self._plans: dict[tuple[int, Hashable], list[Resident] | None] = {}
        self._servers = count(1)

    # Residents

    def enter(self, model: ModelState, now: float) -> Resident:
        """Give ``model`` a place, and return it."""
        self._forget_plans()
        resident = Resident(next(self._servers), model, now)
        self.residents[resident.server] = resident
        model.resident = resident
        model.swap = None
        model.due_at = None
        model.blocked_by = ()
        self.wanted.pop(model.terms.model_id, None)
        return resident

    def leave(self, resident: Resident) -> None:
        """Take a place back: its server is gone."""
        resident.phase = ResidentPhase.GONE
        del self.residents[resident.server]
        model = resident.model
        model.resident = None
        self.review(model)

    def close(self, resident: Resident, why: Closing, now: float) -> None:
        """Have a resident take nothing more, and go once nothing is in flight."""
        if resident.closing is None or why is not Closing.SWAP:
            if resident.closing is None:
                resident.closing_since = now
            resident.closing = why
        self.stop_if_drained(resident, now)

    def stop_if_drained(self, resident: Resident, now: float) -> None:
        """Stop a resident that closes of itself, if it has served whom it must.

        One that closes for a swap goes together with the other victims: ``_proceed``.
        """
        if (resident.phase is ResidentPhase.STARTING and resident.closing is not None) or (
            resident.phase is ResidentPhase.READY
            and resident.closing not in (None, Closing.SWAP)
            and not resident.in_flight
            and _next_of(resident) is None
        ):
            self.stop(resident, now)

    def stop(self, resident: Resident, now: float) -> None:
        """Stop a resident now, whatever it does. Once is enough."""
        if resident.phase in (ResidentPhase.STOPPING, ResidentPhase.GONE):
            return
        resident.phase = ResidentPhase.STOPPING
        resident.stopping_since = now
        self.actions.append(
            Stop(resident.server, resident.model.terms.model_id, cut=resident.in_flight > 0)
        )

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
            self._spare(victim)

    def _spare(self, victim: Resident) -> None:
        if victim.closing is Closing.SWAP and victim.phase is ResidentPhase.READY:
            victim.closing = None
        victim.swap = None

    # Grants

    def serve(self, resident: Resident, now: float) -> None:
        """Grant what a resident can take, in order."""
        if resident.phase is not ResidentPhase.READY:
            return
        while (head := _next_of(resident)) is not None and _may_go(head, resident, now):
            self.forget(head, resident.model)
            self.grant_every_s += _SMOOTHING * (now - self._granted_at - self.grant_every_s)
            self._granted_at = now
            if not head.loads_only:
                self.occupy(resident, head.ticket, head.priority, now)
            self.actions.append(Grant(head.ticket, resident.server))

    def occupy(self, resident: Resident, ticket: int, priority: int, now: float) -> None:
        """Count a request as in flight."""
        resident.in_flight += 1
        resident.levels[priority] = resident.levels.get(priority, 0) + 1
        resident.used_at = now
        self.leases[ticket] = (resident, priority)

    # Places

    def advance(self, now: float) -> None:
        """Give places to the models that are wanted: the best first, the others beside it."""
        self.due_at = math.inf
        self._forget_plans()
        for resident in self.residents.values():
            resident.claim_due_at = None
            resident.claimant = None
        for model in sorted(self.wanted.values(), key=_rank):
            if model.swap is not None:
                self._proceed(model, now)
            if model.swap is None and model.is_wanted:
                self._claim(model, now)
        for resident in list(self.residents.values()):
            if resident.model.line:
                self.serve(resident, now)

    def _claim(self, model: ModelState, now: float) -> None:
        """Start a model, or find out who must go for it and whether they go now."""
        if model.not_before > now:
            self.due_at = min(self.due_at, model.not_before)
            return
        head = model.line.head()
        assert head is not None
        kind = (head.priority, self.planner.kind(model.terms))
        if kind not in self._plans:
            plan = self._plan(model, self._soon(head.priority, now), now)
            if not model.line:
                return
            self._plans[kind] = plan
        victims = self._plans[kind]
        if victims is None:
            model.due_at = None
            return
        due_at = -math.inf
        if victims:
            cost_s = model.expected_load_s + max(each.model.stop_s or 0.0 for each in victims)
            due_at = head.arrived + self.policy.patience_s(cost_s)
        if all(_yields(each, head.priority, due_at, now) for each in victims):
            self._commit(model, victims, now)
            return
        model.due_at = due_at
        model.blocked_by = tuple(each.model.terms.name for each in victims)
        if due_at > now:
            self.due_at = min(self.due_at, due_at)
        for each in victims:
            level = each.level()
            if level is not None and level <= head.priority:
                _put_claim(each, due_at, head.priority, model.terms.name)

    def _commit(self, model: ModelState, victims: list[Resident], now: float) -> None:
        self._forget_plans()
        swap = model.swap = Swap(victims)
        model.due_at = None
        model.blocked_by = tuple(each.model.terms.name for each in victims)
        for each in victims:
            each.swap = swap
            each.model.note(now, NoteKind.EVICTED, model.terms.name)
            self.close(each, Closing.SWAP, now)
        self._proceed(model, now)

    def make_room(self, model: ModelState, victim: Resident, now: float) -> None:
        """Have ``victim`` go so that ``model`` can be started after it."""
        self._commit(model, [victim], now)

    def _proceed(self, model: ModelState, now: float) -> None:
        """Take the next step of a swap: stop its victims together, or start its model."""
        swap = model.swap
        assert swap is not None
        swap.victims = [each for each in swap.victims if each.phase is not ResidentPhase.GONE]
        if swap.victims:
            if not any(each.in_flight for each in swap.victims):
                for each in swap.victims:
                    self.stop(each, now)
            return
        present = [each for each in self.residents.values() if each.model is not model]
        if self._fits(model, present):
            resident = self.enter(model, now)
            model.note(now, NoteKind.STARTED)
            self.actions.append(Start(resident.server, model.terms.model_id))
        elif not any(_is_leaving(each) for each in present):
            # What it was promised is taken, by a server that was found running, say: plan anew.
            self._forget_plans()
            model.swap = None

    # Plans

    def _soon(self, priority: int, now: float) -> list[Held]:
        """Return what will be there when every swap under way is done, the cheapest first.

        To a waiter of ``priority``, that is: a place that is being made for a lower one is
        nobody's yet. Kept until a place changes hands, since a pass asks for every model.
        """
        held = self._held.get(priority)
        if held is not None:
            return held
        held = [
            Held(
                each.model.terms,
                each.server,
                movable=each.takes_requests and not each.model.pinned,
                pinned=each.model.pinned,
                idle=each.is_idle,
                used_at=now if each.in_flight else each.used_at,
            )
            for each in self.residents.values()
            if not _is_leaving(each)
        ]
        held += [
            Held(other.terms, movable=False)
            for other in self.wanted.values()
            if other.swap is not None and _rank(other)[0] <= -priority
        ]
        held.sort(key=lambda each: each.cost)
        self._held[priority] = held
        return held

    def _plan(self, model: ModelState, held: list[Held], now: float) -> list[Resident] | None:
        try:
            chosen = self.planner.plan(model.terms, held)
        except GglibError as error:
            model.note(now, NoteKind.REFUSED, str(error))
            self.reject_all(model, error)
            return None
        if not chosen:
            return None if chosen is None else []
        return [self.residents[server] for server in sorted(chosen)]

    def _forget_plans(self) -> None:
        """A place has changed hands: what was planned holds no longer."""
        self._held.clear()
        self._plans.clear()

    def _fits(self, model: ModelState, present: Iterable[Resident]) -> bool:
        """Whether a model can start beside what is there this very moment."""
        held = [Held(each.model.terms, each.server, movable=False) for each in present]
        return self.planner.plan(model.terms, held) == frozenset()

    # Endings

    def shut_down(self, now: float) -> None:
        """Refuse all who wait, and let every resident go when it is done."""
        for model in {id(model): model for _, model in self.waiters.values()}.values():
            self.reject_all(model, ShuttingDown())
        for resident in list(self.residents.values()):
            self.close(resident, Closing.SHUTDOWN, now)


def _rank(model: ModelState) -> tuple[int, int]:
    head = model.line.head()
    assert head is not None
    return (-head.priority, head.number)


def _is_leaving(resident: Resident) -> bool:
    return resident.closing is not None or resident.phase is ResidentPhase.STOPPING


def _yields(victim: Resident, priority: int, due_at: float, now: float) -> bool:
    """Whether a resident gives way now to a waiter of that priority."""
    level = victim.level()
    if level is None or level < priority:
        return True
    return level == priority and due_at <= now and not victim.gate_holds(priority)


def _put_claim(victim: Resident, due_at: float, priority: int, name: str) -> None:
    if victim.claim_due_at is None or due_at < victim.claim_due_at:
        victim.claim_due_at = due_at
        victim.claim_priority = priority
        victim.claimant = name


def _next_of(resident: Resident) -> Waiter | None:
    """Return who is next of those that a resident still serves."""
    line = resident.model.line
    if resident.closing is None:
        return line.head()
    return line.head_up_to(resident.gate) if resident.closing is Closing.DRAIN else None


def _may_go(head: Waiter, resident: Resident, now: float) -> bool:
    if (
        resident.capacity is not None
        and resident.in_flight >= resident.capacity
        and not head.loads_only
    ):
        return False
    if resident.claim_due_at is None or resident.claim_due_at > now:
        return True
    if resident.claim_priority == head.priority:
        return head.number <= resident.gate
    return resident.claim_priority < head.priority
