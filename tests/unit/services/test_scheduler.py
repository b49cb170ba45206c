"""The scheduler's rules, one by one. Random schedules are in ``test_scheduler_machine``."""

from __future__ import annotations

import attrs
import pytest
from support.routing import Desk, terms

from gglib.errors import (
    BreakerOpen,
    DoesNotFit,
    NoRoom,
    QueueFull,
    ShuttingDown,
    Unloaded,
)
from gglib.services.routing.explain import explain
from gglib.services.routing.planners import (
    CountPlanner,
    ExclusivePlanner,
    Group,
    GroupsPlanner,
    MemoryPlanner,
)

A, B, C, D = (terms(number, name) for number, name in enumerate("abcd", 1))
ONE = attrs.evolve(A, limit=1)


@pytest.fixture
def desk() -> Desk:
    """One model at a time."""
    return Desk(ExclusivePlanner(), places=1)


@pytest.fixture
def two() -> Desk:
    """Two models at a time."""
    return Desk(CountPlanner(2), places=2)


# Starts


def test_first_request_starts_its_model(desk: Desk) -> None:
    """Nothing is in memory."""
    desk.arrive(A)
    assert desk.is_(A) == "starting"


def test_requests_during_a_start_join_it(desk: Desk) -> None:
    """One start serves all."""
    tickets = [desk.arrive(A) for _ in range(10)]
    desk.ready(A)
    assert desk.starts == [A.model_id]
    assert list(desk.granted) == tickets


def test_request_to_a_ready_model_is_granted_at_once(desk: Desk) -> None:
    """The fast path."""
    desk.have(A)
    assert desk.arrive(A) in desk.granted


def test_model_that_fits_starts_beside_the_others(two: Desk) -> None:
    """In parallel with another start."""
    two.arrive(A)
    two.arrive(B)
    assert (two.is_(A), two.is_(B)) == ("starting", "starting")


def test_start_that_nobody_waits_for_is_called_off(desk: Desk) -> None:
    """The last one to leave takes it along, and the next in line gets the place."""
    first, second = desk.arrive(A), desk.arrive(A)
    desk.leave(first)
    assert desk.is_(A) == "starting"
    desk.arrive(B)
    desk.leave(second)
    assert desk.is_(A) == "stopping"
    desk.stopped(A)
    assert desk.is_(B) == "starting"


def test_start_goes_on_without_waiters_where_loads_are_finished() -> None:
    """It is ready for whoever comes back; whoever wants its place waits until then."""
    desk = Desk(ExclusivePlanner(), places=1, finish_loads=True)
    desk.leave(desk.arrive(A))
    assert desk.is_(A) == "starting"
    desk.arrive(B)
    assert desk.is_(A) == "starting"
    desk.ready(A)
    assert desk.is_(A) == "stopping"


def test_start_that_is_unloaded_is_called_off_though_loads_are_finished() -> None:
    """An administrator has said so."""
    desk = Desk(ExclusivePlanner(), finish_loads=True)
    desk.leave(desk.arrive(A))
    desk.unload(A)
    assert desk.is_(A) == "stopping"


def test_failed_start_fails_all_its_waiters_and_starts_the_next(desk: Desk) -> None:
    """An error is no reason to keep another model waiting."""
    first, second, other = desk.arrive(A), desk.arrive(A), desk.arrive(B)
    error = desk.fail(A)
    assert (desk.errors[first], desk.errors[second]) == (error, error)
    assert other in desk.waiting
    assert desk.is_(B) == "starting"


def test_breaker_opens_after_a_failure_and_doubles(desk: Desk) -> None:
    """1 s, 2 s, 4 s, to 60 s at most; the refusal says how long."""
    delays = []
    for _ in range(8):
        desk.arrive(A)
        desk.fail(A)
        refusal = desk.errors[desk.arrive(A)]
        assert isinstance(refusal, BreakerOpen)
        delays.append(refusal.retry_after_s)
        desk.wait(refusal.retry_after_s)
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]


def test_success_closes_the_breaker(desk: Desk) -> None:
    """The next failure is the first again."""
    for _ in range(3):
        desk.arrive(A)
        desk.fail(A)
        desk.wait(60)
    desk.have(A)
    desk.unload(A)
    desk.stopped(A)
    desk.arrive(A)
    desk.fail(A)
    refusal = desk.errors[desk.arrive(A)]
    assert isinstance(refusal, BreakerOpen)
    assert refusal.retry_after_s == 1


def test_load_by_hand_passes_the_breaker_and_takes_no_slot(desk: Desk) -> None:
    """Somebody has just repaired something."""
    desk.arrive(ONE)
    desk.fail(ONE)
    desk.arrive(ONE, loads_only=True)
    request = desk.arrive(ONE)
    desk.ready(ONE)
    assert request in desk.granted
    assert not desk.waiting


def test_start_without_memory_evicts_the_least_used_idle_one_and_is_tried_once_more() -> None:
    """The estimate was wrong; the second failure is told."""
    desk = Desk(CountPlanner(3))
    desk.have(A, B)
    ticket = desk.arrive(C)
    desk.fail(C, out_of_memory=True)
    assert (desk.is_(A), desk.is_(B), desk.is_(C)) == ("stopping", "ready", None)
    desk.stopped(A)
    error = desk.fail(C, out_of_memory=True)
    assert desk.errors[ticket] is error
    assert desk.is_(B) == "ready"


def test_start_without_memory_beside_busy_ones_fails(two: Desk) -> None:
    """Nothing is cut, and nobody waits for the busy one."""
    two.arrive(A)
    two.ready(A)
    ticket = two.arrive(B)
    error = two.fail(B, out_of_memory=True)
    assert two.errors[ticket] is error


# Swaps


def test_idle_resident_yields_at_once(desk: Desk) -> None:
    """Nothing in flight, nobody queued: nothing to wait for."""
    desk.have(A)
    desk.arrive(B)
    assert desk.is_(A) == "stopping"
    desk.stopped(A)
    assert desk.is_(B) == "starting"


def test_resident_at_work_serves_on_until_patience_is_up(desk: Desk) -> None:
    """8 times a swap of 1 s; then its new requests queue, and what is in flight ends."""
    desk.have(A)
    first = desk.arrive(A)
    desk.arrive(B)
    desk.wait(7.9)
    second = desk.arrive(A)
    assert second in desk.granted
    desk.wait(0.1)
    third = desk.arrive(A)
    assert third in desk.waiting
    desk.finish(first)
    assert desk.is_(A) == "ready"
    desk.finish(second)
    assert desk.is_(A) == "stopping"


def test_patience_is_capped_by_max_wait(desk: Desk) -> None:
    """However long the load."""
    desk = Desk(ExclusivePlanner(), max_wait_s=2.0)
    desk.have(A)
    desk.arrive(A)
    desk.arrive(attrs.evolve(B, size_bytes=100 * 10**9))
    desk.wait(1.9)
    assert desk.arrive(A) in desk.granted
    desk.wait(0.1)
    assert desk.arrive(A) in desk.waiting


def test_patience_follows_measured_times(desk: Desk) -> None:
    """A stop of 0.5 s and a load of 2 s: 20 s."""
    desk.arrive(B)
    desk.wait(2.0)
    desk.ready(B)
    desk.finish(*list(desk.granted))
    desk.arrive(A)
    desk.wait(0.5)
    desk.stopped(B)
    desk.ready(A)
    stop = desk.arrive(B)
    desk.wait(0.25)
    del stop
    blocked = desk.scheduler.state(B.model_id)
    assert blocked is not None
    assert blocked.due_at == pytest.approx(desk.now - 0.25 + 8 * 2.0)


def test_gate_is_served_before_the_resident_yields(desk: Desk) -> None:
    """Whoever waited when it became ready, one at a time, however old the others are."""
    first, second = desk.arrive(ONE), desk.arrive(ONE)
    desk.arrive(B)
    desk.wait(100)
    desk.ready(ONE)
    late = desk.arrive(ONE)
    assert first in desk.granted
    desk.finish(first)
    assert second in desk.granted
    desk.finish(second)
    assert late in desk.waiting
    assert desk.is_(ONE) == "stopping"


def test_interleaved_models_are_collated(desk: Desk) -> None:
    """ABCABC becomes AABBCC: three loads for any number of requests."""
    for _ in range(4):
        for model in (A, B, C):
            desk.arrive(model)
    desk.settle()
    assert desk.starts == [A.model_id, B.model_id, C.model_id]


def test_steady_traffic_does_not_starve_another_model(desk: Desk) -> None:
    """Three overlapping clients without pause, and one who waits."""
    desk.have(A)
    flying = [desk.arrive(A) for _ in range(3)]
    began = desk.now
    desk.arrive(B)
    while desk.is_(A) == "ready":
        desk.wait(0.1)
        desk.finish(flying.pop(0))
        ticket = desk.arrive(A)
        if ticket in desk.granted:
            flying.append(ticket)
    assert desk.now - began == pytest.approx(8.3, abs=0.21)


def test_disjoint_swaps_run_in_parallel(two: Desk) -> None:
    """Each evicts another."""
    two.have(A, B)
    two.arrive(C)
    two.arrive(D)
    assert (two.is_(A), two.is_(B)) == ("stopping", "stopping")
    two.stopped(B)
    assert two.starts[2:] == [D.model_id] or two.starts[2:] == [C.model_id]
    two.stopped(A)
    assert {two.is_(C), two.is_(D)} == {"starting"}


def test_model_that_has_come_to_need_more_while_others_go_for_it_is_refused() -> None:
    """Its place is planned anew, and there is none."""
    desk = Desk(MemoryPlanner({"gpu": 8}))
    small, big = (terms(n, str(n), memory={"gpu": need}) for n, need in ((5, 4), (6, 8)))
    desk.have(small)
    ticket = desk.arrive(big)
    desk.arrive(attrs.evolve(big, memory={"gpu": 9}))
    desk.stopped(small)
    assert isinstance(desk.errors[ticket], DoesNotFit)


def test_overlapping_swaps_are_serial(desk: Desk) -> None:
    """A target is no victim: the second waits until the first is served."""
    desk.have(A)
    first, second = desk.arrive(B), desk.arrive(C)
    desk.stopped(A)
    desk.ready(B)
    assert first in desk.granted
    assert desk.starts == [A.model_id, B.model_id]
    desk.finish(first)
    desk.stopped(B)
    desk.ready(C)
    assert second in desk.granted


def test_several_victims_are_drained_and_stopped_together() -> None:
    """One big model in place of two small ones."""
    small, other = (terms(n, str(n), memory={"gpu": 4}) for n in (5, 6))
    big = terms(7, "big", memory={"gpu": 8})
    desk = Desk(MemoryPlanner({"gpu": 8}), budgets={"gpu": 8})
    desk.have(small, other)
    busy = desk.arrive(small)
    desk.arrive(big)
    desk.wait(8)
    assert desk.arrive(other) in desk.waiting
    assert desk.stops == []
    desk.finish(busy)
    assert len(desk.stops) == 2
    desk.stopped(small)
    assert desk.is_(big) is None
    desk.stopped(other)
    assert desk.is_(big) == "starting"


def test_swap_is_called_off_when_its_clients_leave(desk: Desk) -> None:
    """The resident goes on as if nothing had been."""
    desk.have(A)
    busy = desk.arrive(A)
    waiter = desk.arrive(B)
    desk.wait(8)
    queued = desk.arrive(A)
    assert queued in desk.waiting
    desk.leave(waiter)
    assert queued in desk.granted
    desk.finish(busy)
    assert desk.is_(A) == "ready"


def test_drain_that_takes_too_long_is_cut_and_says_so(desk: Desk) -> None:
    """Only where ``max_drain_s`` allows it."""
    desk = Desk(ExclusivePlanner(), max_drain_s=3.0)
    desk.have(A)
    desk.arrive(A)
    desk.arrive(B)
    desk.may_cut = True
    desk.wait(10.9)
    assert desk.cut == []
    desk.wait(0.1)
    assert desk.cut == [A.model_id]


def test_request_during_a_stop_starts_it_again(desk: Desk) -> None:
    """A stop that is under way is not called off: what stops is not ready."""
    desk.have(A)
    desk.unload(A)
    ticket = desk.arrive(A)
    desk.stopped(A)
    desk.ready(A)
    assert ticket in desk.granted


# Priority


def test_higher_priority_goes_first_and_equals_by_age(desk: Desk) -> None:
    """Within a model."""
    holder = desk.arrive(ONE)
    low, first, second = (desk.arrive(ONE, priority=p) for p in (-1, 5, 5))
    desk.ready(ONE)
    order = []
    for _ in range(3):
        (ticket,) = desk.granted
        order.append(ticket)
        desk.finish(ticket)
    assert [*order, *desk.granted] == [first, second, holder, low]


def test_model_of_higher_priority_is_next(desk: Desk) -> None:
    """Though it came last."""
    desk.have(A)
    desk.unload(A)
    desk.arrive(B)
    desk.arrive(C, priority=1)
    desk.stopped(A)
    assert desk.is_(C) == "starting"


def test_higher_priority_waits_for_no_patience_and_no_gate(desk: Desk) -> None:
    """A batch's thousand lines are in nobody's way; what is in flight still ends."""
    lines = [desk.arrive(ONE, priority=-5) for _ in range(3)]
    desk.ready(ONE)
    desk.arrive(B)
    assert desk.is_(ONE) == "ready"
    desk.finish(lines[0])
    assert desk.is_(ONE) == "stopping"


def test_lower_priority_waits_while_there_is_higher(desk: Desk) -> None:
    """Patience or not; and yields to nobody's patience when there is none."""
    desk.have(A)
    busy = desk.arrive(A)
    desk.arrive(B, priority=-1)
    desk.wait(1000)
    later = desk.arrive(A)
    assert later in desk.granted
    desk.finish(busy, later)
    assert desk.is_(A) == "stopping"


# Limits


def test_concurrency_limit_and_slots_hold(desk: Desk) -> None:
    """The lesser of the two."""
    model = attrs.evolve(A, limit=3)
    tickets = [desk.arrive(model) for _ in range(4)]
    desk.ready(model, slots=2)
    assert list(desk.granted) == tickets[:2]
    desk.finish(tickets[0])
    assert list(desk.granted) == tickets[1:3]


def test_full_queue_is_refused_with_the_time_until_there_is_room(desk: Desk) -> None:
    """Nothing is started for it; a grant at once needs no place in the queue."""
    desk = Desk(CountPlanner(2), queue_limit=2)
    big = attrs.evolve(B, size_bytes=20 * 10**9)
    desk.arrive(big), desk.arrive(big)
    desk.wait(4)
    refusal = desk.errors[desk.arrive(A)]
    assert isinstance(refusal, QueueFull)
    assert (refusal.limit, refusal.retry_after_s) == (2, 7.0)
    assert desk.is_(A) is None


def test_model_that_can_never_fit_is_refused() -> None:
    """With what it needs, what there is, and where."""
    desk = Desk(MemoryPlanner({"gpu": 8}))
    pinned = terms(5, "pinned", memory={"gpu": 3}, pinned=True)
    desk.have(pinned)
    error = desk.errors[desk.arrive(terms(6, "big", memory={"gpu": 6}))]
    assert isinstance(error, DoesNotFit)
    assert (error.needed_bytes, error.available_bytes, error.device) == (6, 5, "gpu")


# Pins, idleness, groups


def test_pinned_model_is_never_evicted(two: Desk) -> None:
    """The other one goes, though it was used later."""
    two.pin(A)
    two.have(A, B)
    two.arrive(C)
    assert (two.is_(A), two.is_(B)) == ("ready", "stopping")


def test_request_that_only_a_pinned_model_blocks_is_refused(desk: Desk) -> None:
    """It would wait for ever. Unpinning helps."""
    desk.pin(A)
    desk.have(A)
    assert isinstance(desk.errors[desk.arrive(B)], NoRoom)
    desk.pin(A, False)
    desk.arrive(B)
    assert desk.is_(A) == "stopping"


def test_pinning_saves_a_model_that_is_being_drained(desk: Desk) -> None:
    """Who wanted its place is told that there is none."""
    desk.have(A)
    busy = desk.arrive(A)
    waiter = desk.arrive(B)
    desk.wait(8)
    desk.pin(A)
    assert isinstance(desk.errors[waiter], NoRoom)
    desk.finish(busy)
    assert desk.is_(A) == "ready"


def test_idle_model_goes_after_its_ttl(desk: Desk) -> None:
    """Counted from its last answer; a request in between begins it anew."""
    model = attrs.evolve(A, ttl_s=10)
    desk.have(model)
    desk.wait(9)
    ticket = desk.arrive(model)
    desk.wait(20)
    desk.finish(ticket)
    desk.wait(9.9)
    assert desk.is_(model) == "ready"
    desk.wait(0.1)
    assert desk.is_(model) == "stopping"


@pytest.mark.parametrize("changes", [{"ttl_s": None}, {"ttl_s": 10, "pinned": True}])
def test_model_without_ttl_or_pinned_stays(desk: Desk, changes: dict[str, object]) -> None:
    """For ever."""
    model = attrs.evolve(A, **changes)
    desk.have(model)
    desk.wait(1e6)
    assert desk.is_(model) == "ready"


def test_idle_time_that_was_asked_for_holds_until_the_model_is_gone(desk: Desk) -> None:
    """Its next server idles as the model says."""
    model = attrs.evolve(A, ttl_s=10)
    desk.have(model)
    desk.keep(model, 30)
    desk.wait(29)
    assert desk.is_(model) == "ready"
    desk.wait(1)
    assert desk.is_(model) == "stopping"
    desk.stopped(model)
    desk.have(model)
    desk.wait(10)
    assert desk.is_(model) == "stopping"


def test_idle_time_that_was_asked_for_counts_from_the_last_answer(desk: Desk) -> None:
    """It may be said anew; never and at once are among what may be asked."""
    desk.have(A)
    desk.keep(A, None)
    desk.wait(1e6)
    assert desk.is_(A) == "ready"
    ticket = desk.arrive(A)
    desk.keep(A, 0)
    desk.wait(100)
    assert desk.is_(A) == "ready"
    desk.finish(ticket)
    desk.wait(0)
    assert desk.is_(A) == "stopping"


def test_model_that_idles_longer_than_is_asked_for_goes_at_once(desk: Desk) -> None:
    """Nothing has to happen first."""
    desk.have(A)
    desk.wait(100)
    desk.keep(A, 60)
    assert desk.is_(A) == "stopping"


def test_who_waits_is_served_before_a_model_goes_as_asked(desk: Desk) -> None:
    """Whoever comes once it goes has it started again."""
    desk.have(ONE)
    first, second = desk.arrive(ONE), desk.arrive(ONE)
    desk.keep(ONE, 0)
    desk.finish(first)
    desk.wait(1)
    assert second in desk.granted
    desk.finish(second)
    desk.wait(0)
    assert desk.is_(ONE) == "stopping"
    third = desk.arrive(ONE)
    desk.settle()
    assert third in desk.ended
    assert desk.errors == {}


def test_an_answer_that_ends_last_takes_anothers_place_among_the_kept() -> None:
    """The other one's idle time counts from then on, with nobody else's doing."""
    first, second = terms(1, ttl_s=60), terms(2, ttl_s=60)
    desk = Desk(CountPlanner(2), min_size=1)
    desk.have(first, second)
    long = desk.arrive(first)
    desk.wait(1)
    desk.finish(desk.arrive(second))
    desk.wait(100)
    assert desk.is_(second) == "ready"
    desk.finish(long)
    desk.wait(0)
    assert (desk.is_(first), desk.is_(second)) == ("ready", "stopping")


def test_what_is_asked_for_is_stronger_than_min_size_and_weaker_than_a_pin() -> None:
    """Somebody wants this model's memory back; but whoever pinned it wants it there."""
    desk = Desk(CountPlanner(2), min_size=2)
    desk.have(A, B)
    desk.pin(B)
    for model in (A, B):
        desk.keep(model, 0)
    assert (desk.is_(A), desk.is_(B)) == ("stopping", "ready")


def test_idle_time_of_a_model_that_is_not_there_is_nobodys(desk: Desk) -> None:
    """Neither of one that nobody knows, nor of one that is gone."""
    desk.keep(A, 0)
    desk.have(A)
    desk.wait(100)
    desk.keep(A, 0)
    desk.stopped(A)
    desk.keep(A, 0)
    desk.have(A)
    desk.wait(1e6)
    assert desk.is_(A) == "ready"


def test_groups_swap_within_and_leave_persistent_ones() -> None:
    """As in llama-swap."""
    desk = Desk(
        GroupsPlanner(
            [
                Group(name="chat", members=("a", "b")),
                Group(name="always", members=("c",), exclusive=False, persistent=True),
            ]
        )
    )
    desk.have(A, C)
    assert desk.stops == []
    desk.arrive(B)
    assert (desk.is_(A), desk.is_(C)) == ("stopping", "ready")


# Endings


def test_client_that_leaves_the_queue_is_forgotten(desk: Desk) -> None:
    """It is granted nothing; leaving twice, or being nobody, does no harm."""
    desk.have(ONE)
    busy, waiter = desk.arrive(ONE), desk.arrive(ONE)
    desk.leave(waiter)
    desk.leave(waiter)
    desk.leave(999)
    desk.finish(busy)
    assert desk.scheduler.residents[0].in_flight == 0


def test_unload_releases_waiters_and_waits_for_what_is_in_flight(desk: Desk) -> None:
    """Later requests start it again."""
    desk.have(ONE)
    busy, waiter = desk.arrive(ONE), desk.arrive(ONE)
    desk.unload(ONE)
    assert isinstance(desk.errors[waiter], Unloaded)
    later = desk.arrive(ONE)
    desk.finish(busy)
    desk.stopped(ONE)
    desk.ready(ONE)
    assert later in desk.granted


def test_unload_that_cuts_stops_at_once_and_once(desk: Desk) -> None:
    """Also while something is in flight."""
    desk.have(A)
    desk.arrive(A)
    desk.unload(A, cut=True)
    desk.unload(A, cut=True)
    assert desk.cut == [A.model_id]


def test_unload_calls_a_start_off_and_frees_those_who_drained_for_it(desk: Desk) -> None:
    """Neither goes on for nobody."""
    desk.have(A)
    busy = desk.arrive(A)
    waiter = desk.arrive(B)
    desk.wait(8)
    desk.unload(B)
    assert isinstance(desk.errors[waiter], Unloaded)
    assert desk.arrive(A) in desk.granted
    desk.finish(busy)
    assert desk.stops == []


def test_drain_serves_who_waits_and_nobody_later(desk: Desk) -> None:
    """Then it goes; the later one starts it again."""
    desk.have(ONE)
    busy, waiter = desk.arrive(ONE), desk.arrive(ONE)
    desk.drain(ONE)
    later = desk.arrive(ONE)
    desk.finish(busy)
    assert waiter in desk.granted
    desk.finish(waiter)
    assert desk.is_(ONE) == "stopping"
    desk.stopped(ONE)
    desk.ready(ONE)
    assert later in desk.granted


def test_dead_server_is_started_again_for_who_waits(desk: Desk) -> None:
    """What was in flight is no longer counted."""
    desk.have(ONE)
    busy, waiter = desk.arrive(ONE), desk.arrive(ONE)
    desk.die(ONE)
    desk.ready(ONE)
    assert busy in desk.ended
    assert waiter in desk.granted


def test_server_that_keeps_dying_is_started_later_and_later(desk: Desk) -> None:
    """At once, after 1 s, after 2 s; a stable run resets it."""
    desk.arrive(A), desk.arrive(A)
    for delay in (0, 1, 2):
        desk.ready(A)
        desk.arrive(A)
        desk.die(A)
        desk.arrive(A)
        if delay:
            assert desk.is_(A) is None
            desk.wait(delay)
        assert desk.is_(A) == "starting"
    desk.ready(A)
    desk.wait(10)
    desk.die(A)
    desk.arrive(A)
    assert desk.is_(A) == "starting"


def test_shutdown_rejects_who_waits_and_whoever_comes(desk: Desk) -> None:
    """What is in flight ends first."""
    desk.have(ONE)
    busy, waiter = desk.arrive(ONE), desk.arrive(ONE)
    desk.shut_down()
    assert isinstance(desk.errors[waiter], ShuttingDown)
    assert isinstance(desk.errors[desk.arrive(B)], ShuttingDown)
    assert desk.is_(ONE) == "ready"
    desk.finish(busy)
    desk.stopped(ONE)
    assert desk.scheduler.is_idle


def test_shutdown_cuts_at_its_deadline(desk: Desk) -> None:
    """No answer holds it up for longer."""
    desk.have(A)
    desk.arrive(A)
    desk.shut_down(deadline=desk.now + 5)
    desk.wait(4.9)
    assert desk.cut == []
    desk.wait(0.1)
    assert desk.cut == [A.model_id]


def test_sick_server_is_cut_and_who_waits_gets_a_new_one(desk: Desk) -> None:
    """At once after the first; not after one that was sick as soon as it was ready."""
    limited = terms(1, "a", limit=1)
    desk.have(limited)
    desk.arrive(limited)
    waiting = desk.arrive(limited)
    desk.wait(20)
    desk.sicken(limited)
    assert desk.cut == [limited.model_id]
    desk.stopped(limited)
    desk.ready(limited)
    assert waiting in desk.granted
    assert desk.scheduler.tally.evictions == {"unhealthy": 1}
    desk.arrive(limited)
    starts = len(desk.starts)
    desk.sicken(limited)
    desk.stopped(limited)
    assert len(desk.starts) == starts
    desk.wait(2)
    assert len(desk.starts) == starts + 1


def test_counts_tell_hits_from_misses(desk: Desk) -> None:
    """A request whose model is there is a hit, though it waits; one that only loads is neither."""
    limited = terms(1, "a", limit=1)
    desk.arrive(limited, loads_only=True)
    desk.ready(limited)
    desk.finish(desk.arrive(limited))
    desk.arrive(limited)
    desk.arrive(limited)
    desk.arrive(B)
    tally = desk.scheduler.tally
    assert (tally.hits, tally.misses, tally.loads, tally.hit_rate) == (3, 1, 1, 0.75)


def test_swap_is_counted_when_a_model_has_anothers_place(desk: Desk, two: Desk) -> None:
    """Not for a place that was free, nor before the place is made."""
    desk.have(A)
    desk.arrive(B)
    tally = desk.scheduler.tally
    assert (tally.swaps, desk.is_(A)) == (0, "stopping")
    desk.stopped(A)
    assert tally.swaps == 1
    two.have(A, B)
    assert two.scheduler.tally.swaps == 0


def test_restart_is_counted_by_how_its_server_was_lost(desk: Desk) -> None:
    """When it is started, if ever; and not for one that was to go."""
    tally = desk.scheduler.tally
    desk.have(A)
    desk.die(A)
    assert not tally.restarts
    desk.have(A)
    assert tally.restarts == {("a", "died"): 1}
    desk.wait(20)
    desk.sicken(A)
    desk.stopped(A)
    desk.have(A)
    assert tally.restarts == {("a", "died"): 1, ("a", "unhealthy"): 1}
    desk.wait(20)
    desk.arrive(A)
    desk.unload(A)
    desk.die(A)
    desk.have(A)
    assert tally.restarts.total() == 2


@pytest.mark.parametrize("event", ["server_ready", "server_died", "server_stopped"])
def test_news_of_a_server_that_is_gone_changes_nothing(desk: Desk, event: str) -> None:
    """Numbers are not used again."""
    desk.have(A)
    server = desk.server(A, "ready")
    desk.die(A)
    desk.arrive(A)
    assert getattr(desk.scheduler, event)(server, desk.now) == []
    assert desk.is_(A) == "starting"


# What is told


def test_server_found_running_is_a_resident_like_any(desk: Desk) -> None:
    """It is granted, and evicted."""
    assert desk.take_over(A)
    assert not desk.take_over(A)
    desk.finish(desk.arrive(A))
    desk.arrive(B)
    assert desk.is_(A) == "stopping"


def test_start_is_called_off_when_a_server_is_found_running(desk: Desk) -> None:
    """As on a machine that was away when it began: whoever waits is served at once."""
    ticket = desk.arrive(A)
    started = desk.server(A, "starting")
    assert desk.take_over(A)
    assert ticket in desk.granted
    assert desk.server(A, "stopping") == started
    desk.stopped(A)
    desk.finish(ticket)
    assert desk.is_(A) == "ready"


def test_queue_is_told_in_the_order_of_service(desk: Desk) -> None:
    """Whole models, the best first."""
    desk.have(D)
    desk.unload(D)
    tickets = [desk.arrive(A), desk.arrive(B), desk.arrive(A), desk.arrive(C, priority=1)]
    order = [waiter.ticket for waiter in desk.scheduler.queue()]
    assert order == [tickets[3], tickets[0], tickets[2], tickets[1]]


def test_story_says_who_is_in_the_way_and_until_when(desk: Desk) -> None:
    """And, of the other one, who wants its place; afterwards, for whom it went."""
    desk.have(A)
    busy = desk.arrive(A)
    desk.arrive(B)
    desk.wait(3)
    waiting, resident = (desk.scheduler.state(model.model_id) for model in (B, A))
    assert waiting is not None
    assert resident is not None
    story = explain(waiting, desk.now)
    assert (story.blocked_by, story.waited_s, story.blocked_until_s) == (("a",), 3.0, 5.0)
    story = explain(resident, desk.now)
    assert (story.claimed_by, story.yields_in_s, story.in_flight) == ("b", 5.0, 1)
    desk.finish(busy)
    story = explain(resident, desk.now)
    assert [(each.what, each.because) for each in story.events][-1] == ("evicted", "b")
