"""The exclusive scheduler: its rules, one by one, and by a thousand random schedules."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gglib.errors import GglibError, QueueFull, ShuttingDown, StartFailed, Unloaded
from gglib.services.routing.scheduler import (
    Action,
    Grant,
    Reject,
    ResidentPhase,
    Scheduler,
    Start,
    Stop,
)

A, B, C = 1, 2, 3


class Arrivals:
    """Makes requests, with tickets in order."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self._tickets = count(1)

    def __call__(self, model: int, limit: int | None = None) -> list[Action]:
        return self.scheduler.request_arrived(
            next(self._tickets), model, f"model-{model}", limit=limit
        )


@pytest.fixture
def scheduler() -> Scheduler:
    return Scheduler(queue_limit=10)


@pytest.fixture
def arrive(scheduler: Scheduler) -> Arrivals:
    return Arrivals(scheduler)


def test_first_request_starts_its_model(arrive: Arrivals) -> None:
    """Nothing is resident: the model starts."""
    assert arrive(A) == [Start(A)]


def test_requests_during_a_start_join_it(scheduler: Scheduler, arrive: Arrivals) -> None:
    """One start serves all."""
    arrive(A)
    assert arrive(A) == []
    assert scheduler.server_ready(A) == [Grant(1, A), Grant(2, A)]


def test_request_to_a_ready_model_is_granted_at_once(
    scheduler: Scheduler, arrive: Arrivals
) -> None:
    """The fast path."""
    arrive(A)
    scheduler.server_ready(A)
    assert arrive(A) == [Grant(2, A)]


def test_failed_start_fails_all_its_waiters_and_starts_the_next(
    scheduler: Scheduler, arrive: Arrivals
) -> None:
    """An error is no reason to keep another model waiting."""
    arrive(A), arrive(A), arrive(B)
    error = StartFailed("a", 1)
    assert scheduler.server_failed(A, error) == [Reject(1, error), Reject(2, error), Start(B)]


def test_no_swap_while_the_resident_answers(scheduler: Scheduler, arrive: Arrivals) -> None:
    """What is in flight is never cut for another model."""
    arrive(A)
    scheduler.server_ready(A)
    assert arrive(B) == []
    assert scheduler.request_finished(1) == [Stop(A)]
    assert scheduler.server_stopped(A) == [Start(B)]


def test_idle_resident_yields_at_once(scheduler: Scheduler, arrive: Arrivals) -> None:
    """Nothing in flight: nothing to wait for."""
    arrive(A)
    scheduler.server_ready(A)
    scheduler.request_finished(1)
    assert arrive(B) == [Stop(A)]


def test_new_requests_queue_while_another_model_waits(
    scheduler: Scheduler, arrive: Arrivals
) -> None:
    """Steady traffic on one model cannot starve another."""
    arrive(A)
    scheduler.server_ready(A)
    arrive(B)
    assert arrive(A) == []
    assert scheduler.request_finished(1) == [Stop(A)]


def test_interleaved_models_are_collated(scheduler: Scheduler, arrive: Arrivals) -> None:
    """ABABAB costs one swap, not five."""
    for _ in range(3):
        arrive(A), arrive(B)
    granted = [a.ticket for a in scheduler.server_ready(A) if isinstance(a, Grant)]
    assert granted == [1, 3, 5]
    assert [scheduler.request_finished(ticket) for ticket in granted] == [[], [], [Stop(A)]]
    assert scheduler.server_stopped(A) == [Start(B)]
    assert scheduler.server_ready(B) == [Grant(2, B), Grant(4, B), Grant(6, B)]


def test_concurrency_limit_holds_and_the_gate_is_served_first(
    scheduler: Scheduler, arrive: Arrivals
) -> None:
    """Whoever waited when it became ready is served before it yields, one at a time."""
    arrive(A, 1), arrive(A, 1), arrive(B)
    assert scheduler.server_ready(A) == [Grant(1, A)]
    assert arrive(A, 1) == []  # behind the gate, and behind B
    assert scheduler.request_finished(1) == [Grant(2, A)]
    assert scheduler.request_finished(2) == [Stop(A)]


def test_client_that_leaves_the_queue_is_forgotten(scheduler: Scheduler, arrive: Arrivals) -> None:
    """It is granted nothing, and a stop for its sake is called off."""
    arrive(A)
    scheduler.server_ready(A)
    arrive(B)
    assert scheduler.request_gone(2) == []
    assert arrive(A) == [Grant(3, A)]


def test_start_that_nobody_waits_for_is_called_off(scheduler: Scheduler, arrive: Arrivals) -> None:
    """The last one to leave takes it along."""
    arrive(A), arrive(A)
    assert scheduler.request_gone(1) == []
    assert scheduler.request_gone(2) == [Stop(A)]
    assert scheduler.server_stopped(A) == []
    assert scheduler.is_idle


def test_request_during_a_stop_starts_it_again(scheduler: Scheduler, arrive: Arrivals) -> None:
    """A stop that is under way is not called off: what stops is not ready."""
    arrive(A)
    scheduler.server_ready(A)
    scheduler.request_finished(1)
    assert scheduler.unload(A) == [Stop(A)]
    assert arrive(A) == []
    assert scheduler.server_stopped(A) == [Start(A)]


def test_dead_server_is_started_again_for_who_waits(scheduler: Scheduler, arrive: Arrivals) -> None:
    """Waiters get a new one; what was in flight is no longer counted."""
    arrive(A, 1), arrive(A, 1)
    scheduler.server_ready(A)
    assert scheduler.server_died(A) == [Start(A)]
    assert scheduler.server_ready(A) == [Grant(2, A)]
    assert scheduler.request_finished(1) == []


def test_unload_releases_waiters_and_waits_for_what_is_in_flight(
    scheduler: Scheduler, arrive: Arrivals
) -> None:
    """Later requests start it again."""
    arrive(A, 1), arrive(A, 1)
    scheduler.server_ready(A)
    (rejected,) = scheduler.unload(A)
    assert isinstance(rejected, Reject)
    assert (rejected.ticket, type(rejected.error)) == (2, Unloaded)
    assert scheduler.request_finished(1) == [Stop(A)]


def test_unload_that_cuts_stops_at_once_and_once(scheduler: Scheduler, arrive: Arrivals) -> None:
    """A second one does nothing."""
    arrive(A)
    scheduler.server_ready(A)
    assert scheduler.unload(A, cut=True) == [Stop(A)]
    assert scheduler.unload(A, cut=True) == []


def test_unload_of_a_starting_model_calls_the_start_off(
    scheduler: Scheduler, arrive: Arrivals
) -> None:
    """Its waiters are told."""
    arrive(A)
    assert [type(action) for action in scheduler.unload(A)] == [Reject, Stop]


def test_queue_beyond_its_limit_is_refused(scheduler: Scheduler, arrive: Arrivals) -> None:
    """At once, with the limit."""
    for _ in range(10):
        arrive(A)
    (rejected,) = arrive(B)
    assert isinstance(rejected, Reject)
    assert isinstance(rejected.error, QueueFull)
    assert rejected.error.limit == 10


def test_shutdown_rejects_who_waits_and_whoever_comes(
    scheduler: Scheduler, arrive: Arrivals
) -> None:
    """What is in flight ends first."""
    arrive(A), arrive(B)
    scheduler.server_ready(A)
    (rejected,) = scheduler.shutdown()
    assert isinstance(rejected, Reject)
    assert isinstance(rejected.error, ShuttingDown)
    assert [type(action) for action in arrive(A)] == [Reject]
    assert scheduler.request_finished(1) == [Stop(A)]
    assert scheduler.server_stopped(A) == []
    assert scheduler.is_idle


@pytest.mark.parametrize("event", ["server_ready", "server_died", "server_stopped"])
def test_event_of_a_model_that_is_not_resident_changes_nothing(
    scheduler: Scheduler, arrive: Arrivals, event: str
) -> None:
    """Late news does no harm."""
    arrive(A)
    assert getattr(scheduler, event)(B) == []
    assert scheduler.server_ready(A) == [Grant(1, A)]


class Schedules(RuleBasedStateMachine):
    """Random schedules against an abstract model of what must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(queue_limit=6)
        self.tickets = count(1)
        self.waiting: dict[int, int] = {}
        self.granted: dict[int, int] = {}
        self.ended: set[int] = set()
        self.running: int | None = None
        self.ready = False
        self.stopping = False
        self.shutting_down = False

    def carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Start(model_id=model):
                    assert self.running is None, "started beside another"
                    self.running, self.ready, self.stopping = model, False, False
                case Stop(model_id=model):
                    assert self.running == model
                    assert not self.stopping, "stopped twice"
                    self.stopping = True
                case Grant(ticket=ticket, model_id=model):
                    assert self.running == model
                    assert self.ready
                    assert not self.stopping
                    assert self.waiting.pop(ticket) == model
                    self.granted[ticket] = model
                case Reject(ticket=ticket):
                    del self.waiting[ticket]
                    assert ticket not in self.ended, "ended twice"
                    self.ended.add(ticket)

    @rule(model=st.sampled_from([A, B, C]), limit=st.sampled_from([None, 1, 2]))
    def arrive(self, model: int, limit: int | None) -> None:
        ticket = next(self.tickets)
        self.waiting[ticket] = model
        self.carry_out(self.scheduler.request_arrived(ticket, model, str(model), limit=limit))

    @precondition(lambda self: self.waiting or self.granted)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted({**self.waiting, **self.granted})))
        self.waiting.pop(ticket, None)
        self.granted.pop(ticket, None)
        self.ended.add(ticket)
        self.carry_out(self.scheduler.request_gone(ticket))

    @precondition(lambda self: self.granted)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.granted)))
        del self.granted[ticket]
        self.ended.add(ticket)
        self.carry_out(self.scheduler.request_finished(ticket))

    @precondition(lambda self: self.running and not self.ready and not self.stopping)
    @rule(failure=st.booleans())
    def start_ends(self, failure: bool) -> None:
        assert self.running is not None
        model = self.running
        if failure:
            self.running = None
            self.carry_out(self.scheduler.server_failed(model, StartFailed("m", 1)))
        else:
            self.ready = True
            self.carry_out(self.scheduler.server_ready(model))

    @precondition(lambda self: self.running and self.stopping)
    @rule()
    def stop_ends(self) -> None:
        assert self.running is not None
        model, self.running, self.ready, self.stopping = self.running, None, False, False
        self.carry_out(self.scheduler.server_stopped(model))

    @precondition(lambda self: self.running and self.ready and not self.stopping)
    @rule()
    def die(self) -> None:
        assert self.running is not None
        model, self.running, self.ready = self.running, None, False
        self.carry_out(self.scheduler.server_died(model))

    @rule(model=st.sampled_from([A, B, C]), cut=st.booleans())
    def unload(self, model: int, cut: bool) -> None:
        self.carry_out(self.scheduler.unload(model, cut=cut))

    @precondition(lambda self: len(self.ended) > 10)
    @rule()
    def shut_down(self) -> None:
        self.shutting_down = True
        self.carry_out(self.scheduler.shutdown())
        assert not self.waiting

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """No lost wake-up: who waits, waits for something that will come."""
        if self.waiting:
            assert self.running is not None
            if self.ready and not self.stopping:
                assert self.granted, "an idle resident, and somebody waits"

    @invariant()
    def phases_agree(self) -> None:
        resident = self.scheduler.resident
        assert (resident.model_id if resident else None) == self.running
        if resident is not None:
            assert (resident.phase is ResidentPhase.STOPPING) == self.stopping

    def teardown(self) -> None:
        """Whatever happened, a shutdown ends everything."""
        self.shut_down()
        for ticket in list(self.granted):
            del self.granted[ticket]
            self.carry_out(self.scheduler.request_finished(ticket))
        if self.running is not None:
            if not self.stopping:
                pytest.fail("a server that nobody uses outlives the shutdown")
            self.stop_ends()
        assert self.scheduler.is_idle


Schedules.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestRandomSchedules = Schedules.TestCase


def test_errors_name_the_model_they_are_about() -> None:
    """A waiter's error tells which model it waited for."""
    scheduler = Scheduler(queue_limit=0)
    (rejected,) = scheduler.request_arrived(1, A, "alpha")
    assert isinstance(rejected, Reject)
    assert isinstance(rejected.error, GglibError)
    assert "alpha" in str(rejected.error)
