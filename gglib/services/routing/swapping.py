"""Who gets a place next, and who must go for it: the decisions between models."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from gglib.errors import GglibError, ShuttingDown
from gglib.services.routing.actions import Start
from gglib.services.routing.books import Books
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
from gglib.services.routing.terms import ModelTerms, Policy

__all__ = ["Swapping"]


class Swapping:
    """The passage of places from one model to another, and to further servers of one."""

    __slots__ = ("_books", "_held", "_planner", "_plans", "_policy", "due_at")

    def __init__(self, books: Books, planner: Planner, policy: Policy) -> None:
        self.due_at = math.inf
        """When the next pass is due, if nothing happens before."""
        self._books = books
        self._planner = planner
        self._policy = policy
        self._held: dict[int, list[Held]] = {}
        self._plans: dict[tuple[int, Hashable], list[Resident] | None] = {}

    def set_policy(self, policy: Policy, planner: Planner) -> None:
        """Plan otherwise from now on."""
        self._policy = policy
        self._planner = planner

    # Places

    def advance(self, now: float) -> None:
        """Give places to the models that are wanted: the best first, the others beside it.

        When none is left, those whose servers are full may have more.
        """
        books = self._books
        self.due_at = math.inf
        self._forget_plans()
        for resident in books.residents.values():
            resident.claim_due_at = None
            resident.claimant = None
        for model in sorted(books.wanted.values(), key=_rank):
            if model.swap is not None:
                self._proceed(model, now)
            if model.swap is None and model.is_wanted:
                self._claim(model, now)
        lines = {id(each.model): each.model for each in books.residents.values() if each.model.line}
        for model in lines.values():
            books.serve(model, now)
        if not books.wanted:
            for model in sorted((each for each in lines.values() if each.wants_more), key=_rank):
                self.grow(model, now)

    def grow(self, model: ModelState, now: float) -> None:
        """Start a further server of a model that wants more, if there is room for it.

        Nobody goes for it, and nobody who waits for a place waits longer for it: it is
        started only when no other model is wanted.
        """
        if not model.wants_more or self._books.wanted:
            return
        if model.not_before > now:
            self.due_at = min(self.due_at, model.not_before)
            return
        held = [each.terms.runner for each in model.residents if not each.is_leaving]
        lost = [each.terms.runner for each in model.residents if each.is_away]
        spots, again_at = model.trials.further(model.terms, held, self._books.away, now)
        for spot in spots:
            # Where there is no way to one of them, it may run yet.
            if spot.runner not in lost and self._fits(spot):
                self._start(model, spot, now)
                return
        self.due_at = min(self.due_at, again_at)

    def _claim(self, model: ModelState, now: float) -> None:
        """Start a model, or find out who must go for it and whether they go now."""
        if model.not_before > now:
            self.due_at = min(self.due_at, model.not_before)
            return
        head = model.line.head()
        assert head is not None
        plans = self._plans_for(model, head.priority, now)
        model.due_at = None
        first: tuple[float, list[Resident]] | None = None
        for spot, victims in plans:
            due_at = self._due_at(model, head, victims)
            if all(_yields(each, head.priority, due_at, now) for each in victims):
                self._commit(model, spot, victims, now)
                return
            first = first or (due_at, victims)
        if first is None:
            return
        due_at, victims = first
        model.due_at = due_at
        model.blocked_by = _names(victims)
        if due_at > now:
            self.due_at = min(self.due_at, due_at)
        for each in victims:
            level = each.level()
            if level is not None and level <= head.priority:
                _put_claim(each, due_at, head.priority, model.terms.name)

    def _due_at(self, model: ModelState, head: Waiter, victims: list[Resident]) -> float:
        """Return until when the next in line has patience with those in its model's way."""
        if not victims:
            return -math.inf
        cost_s = model.expected_load_s + max(each.model.stop_s or 0.0 for each in victims)
        return head.arrived + self._policy.patience_s(cost_s)

    def _commit(
        self, model: ModelState, spot: ModelTerms, victims: list[Resident], now: float
    ) -> None:
        self._forget_plans()
        swap = model.swap = Swap(spot, victims, bool(victims))
        model.due_at = None
        model.blocked_by = _names(victims)
        for each in victims:
            each.swap = swap
            each.model.note(now, NoteKind.EVICTED, model.terms.name)
            self._books.close(each, Closing.SWAP, now)
        self._proceed(model, now)

    def make_room(self, model: ModelState, spot: ModelTerms, victim: Resident, now: float) -> None:
        """Have ``victim`` go so that ``model`` can be started after it, on its runner."""
        self._commit(model, spot, [victim], now)

    def _proceed(self, model: ModelState, now: float) -> None:
        """Take the next step of a swap: stop its victims together, or start its model."""
        swap = model.swap
        assert swap is not None
        swap.victims = [each for each in swap.victims if each.phase is not ResidentPhase.GONE]
        if swap.victims:
            if not any(each.in_flight for each in swap.victims):
                for each in swap.victims:
                    self._books.stop(each, now)
            return
        if self._fits(swap.terms):
            self._books.tally.swaps += swap.evicts
            self._start(model, swap.terms, now)
        elif not any(each.is_leaving for each in self._books.residents.values()):
            # What it was promised is taken, by a server that was found running, say: plan anew.
            self._forget_plans()
            model.swap = None

    def _start(self, model: ModelState, spot: ModelTerms, now: float) -> None:
        self._forget_plans()
        resident = self._books.enter(model, spot, now)
        size = spot.context_size
        with_less = None if size is None else f"a context of {size} tokens, as memory allows"
        model.note_at(spot.runner, now, NoteKind.STARTED, with_less)
        if model.lost is not None:
            self._books.tally.restarts[model.terms.name, model.lost] += 1
            model.lost = None
        self._books.actions.append(Start(resident.server, spot.model_id, spot.runner))

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
                each.terms,
                each.server,
                movable=self._may_go(each),
                pinned=each.model.pinned,
                idle=each.is_idle,
                spare=len(each.model.residents) > 1 and each is not _mainstay(each.model),
                used_at=now if each.in_flight else each.used_at,
            )
            for each in self._books.residents.values()
            if not each.is_leaving
        ]
        held += [
            Held(other.swap.terms, movable=False)
            for other in self._books.wanted.values()
            if other.swap is not None and _rank(other)[0] <= -priority
        ]
        held.sort(key=lambda each: each.cost)
        self._held[priority] = held
        return held

    def _may_go(self, resident: Resident) -> bool:
        """Whether it may be evicted: it is ready, or its start is one that nobody waits for."""
        if resident.model.pinned:
            return False
        if resident.phase is ResidentPhase.STARTING:
            return not resident.model.line and not self._policy.finish_loads
        return resident.takes_requests or (resident.is_away and resident.closing is None)

    def _plans_for(
        self, model: ModelState, priority: int, now: float
    ) -> list[tuple[ModelTerms, list[Resident]]]:
        """Return where a server of a model could come, the best first, and who must go for it.

        Where nobody must is before the others. Nowhere whoever went, and who waits is told.
        """
        plans: list[tuple[ModelTerms, list[Resident]]] = []
        refused = 0
        spots, again_at = self._untried(model, now)
        for spot in spots:
            kind = (priority, self._planner.kind(spot))
            if kind not in self._plans:
                try:
                    self._plans[kind] = self._plan(spot, self._soon(priority, now))
                except GglibError as error:
                    refused += 1
                    self._refuse(model, spot.runner, error, now)
                    continue
            victims = self._plans[kind]
            if victims is None:
                continue
            if not victims:
                return [(spot, victims)]
            plans.append((spot, victims))
        if refused == len(spots):
            self._books.reject_all(model, model.trials.why_not(model.terms))
        else:
            self.due_at = min(self.due_at, again_at)
        return plans

    def spots_left(self, model: ModelState, now: float) -> bool:
        """Whether there is a runner on which a start has not failed who waits for the model."""
        return bool(self._untried(model, now)[0])

    def _untried(self, model: ModelState, now: float) -> tuple[Sequence[ModelTerms], float]:
        """Return where a start may be tried now, the best first, and when to look again."""
        if not (model.trials or model.residents or model.terms.elsewhere):
            return (model.terms,), math.inf
        # One to which there is no way is found again: a second one beside it would be too many.
        shunned = [each.terms.runner for each in model.residents if each.is_away]
        return model.trials.untried(model.terms, shunned, self._books.away, now)

    def _refuse(self, model: ModelState, runner: str | None, error: GglibError, now: float) -> None:
        """Note that there is no room for a model on a runner, whoever goes."""
        trial = model.trials.on(runner)
        if str(trial.why_not) != str(error) or not model.terms.elsewhere:
            model.note_at(runner, now, NoteKind.REFUSED, str(error))
        trial.why_not = error

    def _plan(self, spot: ModelTerms, held: list[Held]) -> list[Resident] | None:
        chosen = self._planner.plan(spot, held)
        if not chosen:
            return None if chosen is None else []
        return [self._books.residents[server] for server in sorted(chosen)]

    def _forget_plans(self) -> None:
        """A place has changed hands: what was planned holds no longer."""
        self._held.clear()
        self._plans.clear()

    def _fits(self, spot: ModelTerms) -> bool:
        """Whether a server of a model can start beside all that is there this very moment."""
        held = [
            Held(each.terms, each.server, movable=False) for each in self._books.residents.values()
        ]
        try:
            return self._planner.plan(spot, held) == frozenset()
        except GglibError:
            # It needs more than it did when its place was planned, or its first server started.
            return False

    # Endings

    def shut_down(self, now: float) -> None:
        """Refuse all who wait, and let every resident go when it is done."""
        books = self._books
        for model in {id(model): model for _, model in books.waiters.values()}.values():
            books.reject_all(model, ShuttingDown())
        for resident in list(books.residents.values()):
            books.close(resident, Closing.SHUTDOWN, now)


def _rank(model: ModelState) -> tuple[int, int]:
    head = model.line.head()
    assert head is not None
    return (-head.priority, head.number)


def _names(residents: list[Resident]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.model.terms.name for each in residents))


def _mainstay(model: ModelState) -> Resident | None:
    """Return the server of a model that is the last to be spared: at work, or used last."""
    ready = [each for each in model.residents if each.takes_requests]
    return max(
        ready,
        key=lambda each: (
            each.in_flight > 0,
            0.0 if each.in_flight else each.used_at,
            -each.server,
        ),
        default=None,
    )


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
