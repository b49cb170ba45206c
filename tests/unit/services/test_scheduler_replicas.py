"""Several servers of one model: when they come, who serves whom, and when they go."""

from __future__ import annotations

import attrs
import pytest
from support.routing import Desk, terms

from gglib.errors import NoRoom
from gglib.services.routing.explain import explain
from gglib.services.routing.planners import CountPlanner, Group, GroupsPlanner, MemoryPlanner
from gglib.services.routing.scheduler import ModelTerms
from gglib.services.routing.sessions import Sessions

A = terms(1, "a", limit=2, replicas=2)
B, C = terms(2, "b"), terms(3, "c")


@pytest.fixture
def desk() -> Desk:
    """Three servers at a time."""
    return Desk(CountPlanner(3), places=3)


def have_two(desk: Desk, model: ModelTerms = A) -> tuple[int, int]:
    """Have two idle servers of the model; their numbers."""
    tickets = [desk.arrive(model) for _ in range(3)]
    desk.ready(model)
    desk.ready(model)
    desk.finish(*tickets)
    first, second = desk.servers(model)
    return first, second


# When they come


def test_further_server_starts_when_the_first_is_full_and_somebody_waits(desk: Desk) -> None:
    """Not before; and one at a time."""
    three = attrs.evolve(A, replicas=3)
    first, second = desk.arrive(three), desk.arrive(three)
    desk.ready(three)
    assert {first, second} <= desk.granted.keys()
    assert list(desk.servers(three).values()) == ["ready"]
    waiters = [desk.arrive(three) for _ in range(3)]
    assert list(desk.servers(three).values()) == ["ready", "starting"]
    desk.ready(three)
    assert [waiter in desk.granted for waiter in waiters] == [True, True, False]
    assert list(desk.servers(three).values()) == ["ready", "ready", "starting"]


def test_waiter_is_served_by_whichever_server_is_free_first(desk: Desk) -> None:
    """All stand in one line."""
    busy = [desk.arrive(A), desk.arrive(A)]
    desk.ready(A)
    waiter = desk.arrive(A)
    desk.finish(busy[0])
    assert waiter in desk.granted
    assert list(desk.servers(A).values()) == ["ready", "starting"]


def test_model_has_no_more_servers_than_it_may_have(desk: Desk) -> None:
    """However many wait."""
    have_two(desk)
    for _ in range(10):
        desk.arrive(A)
    assert len(desk.servers(A)) == 2


def test_model_without_a_limit_needs_no_second_server(desk: Desk) -> None:
    """Its server is never full."""
    model = attrs.evolve(A, limit=None)
    for _ in range(100):
        desk.arrive(model)
    desk.ready(model)
    assert len(desk.servers(model)) == 1


def test_further_server_evicts_nobody(desk: Desk) -> None:
    """Be the others idle: it comes when there is room."""
    desk.have(B, C)
    for _ in range(3):
        desk.arrive(A)
    desk.ready(A)
    assert (len(desk.servers(A)), desk.stops) == (1, [])
    desk.unload(B)
    assert len(desk.servers(A)) == 1
    desk.stopped(B)
    assert len(desk.servers(A)) == 2


def test_model_that_has_come_to_need_more_than_there_is_stays_with_one_server() -> None:
    """What it is said to need may change while it runs; nobody is refused for that."""
    desk = Desk(MemoryPlanner({"gpu": 8}))
    tickets = [desk.arrive(attrs.evolve(A, memory={"gpu": 2})) for _ in range(2)]
    desk.ready(A)
    waiter = desk.arrive(attrs.evolve(A, memory={"gpu": 9}))
    assert list(desk.servers(A).values()) == ["ready"]
    desk.finish(tickets[0])
    assert waiter in desk.granted


def test_model_that_waits_for_room_goes_before_a_further_server() -> None:
    """It gets the place that is free already, as soon as the other half is."""
    desk = Desk(MemoryPlanner({"gpu": 8}), budgets={"gpu": 8})
    model = attrs.evolve(A, memory={"gpu": 2})
    small, big = (terms(n, str(n), memory={"gpu": need}) for n, need in ((2, 4), (3, 6)))
    desk.have(small)
    held = desk.arrive(small)
    for _ in range(2):
        desk.arrive(model)
    desk.ready(model)
    desk.arrive(big)
    desk.arrive(model)
    assert len(desk.servers(model)) == 1
    desk.finish(held)
    desk.stopped(small)
    assert desk.is_(big) == "starting"
    assert len(desk.servers(model)) == 1


def test_each_server_needs_memory_of_its_own() -> None:
    """Two of 3 fit into 8; the third does not."""
    desk = Desk(MemoryPlanner({"gpu": 8}), budgets={"gpu": 8})
    model = attrs.evolve(A, replicas=3, memory={"gpu": 3})
    for _ in range(9):
        desk.arrive(model)
    desk.ready(model)
    desk.ready(model)
    assert list(desk.servers(model).values()) == ["ready", "ready"]


def test_servers_of_one_model_are_not_in_conflict_in_a_group_that_swaps() -> None:
    """Only its other members are."""
    desk = Desk(GroupsPlanner([Group(name="g", members=("a", "b"))]))
    have_two(desk)
    desk.arrive(B)
    assert list(desk.servers(A).values()) == ["stopping", "stopping"]


# Who serves whom


def test_request_goes_to_the_least_busy_server(desk: Desk) -> None:
    """Of equals, to the first."""
    first, second = have_two(desk)
    tickets = [desk.arrive(A) for _ in range(3)]
    assert [desk.granted[ticket] for ticket in tickets] == [first, second, first]
    desk.finish(tickets[0], tickets[2])
    assert desk.granted[desk.arrive(A)] == first


def test_session_goes_where_it_was_before(desk: Desk) -> None:
    """Though another server is less busy."""
    first, _ = have_two(desk)
    desk.finish(desk.arrive(A, session="s"))
    desk.arrive(A)
    assert desk.granted[desk.arrive(A, session="s")] == first


def test_session_whose_server_is_full_moves_to_another_and_stays_there(desk: Desk) -> None:
    """It waits for nobody."""
    first, second = have_two(desk)
    desk.finish(desk.arrive(A, session="s"))
    full = [desk.arrive(A, session="s") for _ in range(2)]
    assert {desk.granted[ticket] for ticket in full} == {first}
    moved = desk.arrive(A, session="s")
    assert desk.granted[moved] == second
    desk.finish(*full, moved)
    assert desk.granted[desk.arrive(A, session="s")] == second


def test_session_of_a_server_that_is_gone_goes_to_the_least_busy(desk: Desk) -> None:
    """Nothing is left of what it had there."""
    first, second = have_two(desk)
    desk.finish(desk.arrive(A, session="s"))
    desk.die(A, first)
    assert desk.granted[desk.arrive(A, session="s")] == second


def test_session_that_waited_goes_where_it_was_before() -> None:
    """When all servers take requests again at once."""
    desk = Desk(MemoryPlanner({"gpu": 8}), budgets={"gpu": 8})
    model, big = attrs.evolve(A, memory={"gpu": 4}), attrs.evolve(B, memory={"gpu": 8})
    _, second = have_two(desk, model)
    desk.arrive(model)
    desk.arrive(model, session="s")
    other = desk.arrive(big)
    desk.wait(8)
    waiter = desk.arrive(model, session="s")
    assert waiter in desk.waiting
    desk.leave(other)
    assert desk.granted[waiter] == second


def test_sessions_are_remembered_in_bounds() -> None:
    """The one that was used longest ago is forgotten first; another model's are others."""
    sessions = Sessions(most=2)
    for name, server in (("a", 1), ("b", 2), ("a", 3), ("c", 4)):
        sessions.note(7, name, server)
    assert [sessions.server_of(7, name) for name in "abc"] == [3, None, 4]
    assert sessions.server_of(8, "a") is None


# When they go


def test_server_too_many_idles_out_by_itself(desk: Desk) -> None:
    """Requests go to the first of equals, so that the other one has nothing to do."""
    model = attrs.evolve(A, ttl_s=10)
    first, second = have_two(desk, model)
    for _ in range(4):
        desk.wait(4)
        desk.finish(desk.arrive(model))
    assert desk.servers(model) == {first: "ready", second: "stopping"}


def test_idle_server_that_its_model_can_spare_goes_first(desk: Desk) -> None:
    """Before a model's only one, though that was used longer ago; the later used one stays."""
    desk.have(B)
    first, second = have_two(desk)
    desk.finish(desk.arrive(A))
    desk.arrive(C)
    assert desk.servers(A) == {first: "ready", second: "stopping"}
    assert desk.is_(B) == "ready"


def test_model_keeps_serving_on_one_server_while_another_yields(desk: Desk) -> None:
    """Who waits for a place waits for one server, and the others take the requests."""
    desk = Desk(CountPlanner(2), places=2)
    first, second = have_two(desk)
    held = [desk.arrive(A), desk.arrive(A)]
    assert {desk.granted[ticket] for ticket in held} == {first, second}
    desk.arrive(B)
    desk.wait(8)
    later = desk.arrive(A)
    assert desk.granted[later] == first
    desk.finish(held[1])
    assert desk.servers(A) == {first: "ready", second: "stopping"}
    desk.stopped(A, second)
    assert desk.is_(B) == "starting"


def test_steady_traffic_on_all_servers_does_not_starve_another_model() -> None:
    """The promise holds with several: patience, and what is in flight on one."""
    desk = Desk(CountPlanner(2), places=2)
    have_two(desk)
    flying = [desk.arrive(A) for _ in range(4)]
    began = desk.now
    desk.arrive(B)
    while "stopping" not in desk.phases.values():
        desk.wait(0.1)
        desk.finish(flying.pop(0))
        ticket = desk.arrive(A)
        if ticket in desk.granted:
            flying.append(ticket)
    assert desk.now - began == pytest.approx(8.3, abs=0.21)


def test_start_that_nobody_waits_for_any_more_makes_room_at_once(desk: Desk) -> None:
    """Its line was served by the other server meanwhile."""
    desk = Desk(CountPlanner(2), places=2)
    tickets = [desk.arrive(A) for _ in range(3)]
    desk.ready(A)
    desk.finish(tickets[0])
    assert tickets[2] in desk.granted
    assert list(desk.servers(A).values()) == ["ready", "starting"]
    desk.arrive(B)
    assert list(desk.servers(A).values()) == ["ready", "stopping"]


def test_further_start_is_called_off_when_the_last_one_who_waits_leaves(desk: Desk) -> None:
    """As the first one would be."""
    waiter = [desk.arrive(A) for _ in range(3)][-1]
    desk.ready(A)
    desk.leave(waiter)
    assert list(desk.servers(A).values()) == ["ready", "stopping"]


def test_unload_ends_every_server_of_the_model(desk: Desk) -> None:
    """The one that starts, too."""
    tickets = [desk.arrive(A) for _ in range(3)]
    desk.ready(A)
    desk.unload(A)
    assert list(desk.servers(A).values()) == ["ready", "stopping"]
    desk.finish(*tickets[:2])
    assert list(desk.servers(A).values()) == ["stopping", "stopping"]


def test_drain_lets_every_server_serve_who_waits_and_go(desk: Desk) -> None:
    """Later ones start it again, when all are gone."""
    first, second = have_two(desk)
    held = [desk.arrive(A) for _ in range(4)]
    waiter = desk.arrive(A)
    desk.drain(A)
    later = desk.arrive(A)
    desk.finish(*held)
    assert waiter in desk.granted
    desk.finish(waiter)
    assert set(desk.servers(A).values()) == {"stopping"}
    desk.stopped(A, first)
    assert later in desk.waiting
    desk.stopped(A, second)
    desk.ready(A)
    assert later in desk.granted


def test_drain_calls_a_further_start_off(desk: Desk) -> None:
    """The ready one serves who waits."""
    tickets = [desk.arrive(A) for _ in range(3)]
    desk.ready(A)
    desk.drain(A)
    assert list(desk.servers(A).values()) == ["ready", "stopping"]
    desk.finish(tickets[0])
    assert tickets[2] in desk.granted


def test_pin_keeps_every_server_of_the_model(desk: Desk) -> None:
    """And who finds no place beside them is told whose they are."""
    desk = Desk(CountPlanner(2), places=2)
    have_two(desk, attrs.evolve(A, ttl_s=1))
    desk.pin(attrs.evolve(A, ttl_s=1))
    desk.wait(100)
    error = desk.errors[desk.arrive(B)]
    assert isinstance(error, NoRoom)
    assert error.pinned == ("a",)
    assert list(desk.servers(A).values()) == ["ready", "ready"]


# Failures


def test_others_serve_on_when_a_server_dies(desk: Desk) -> None:
    """Who waits gets the place of another, or of the one that starts in its stead."""
    first, second = have_two(desk)
    held = [desk.arrive(A) for _ in range(4)]
    waiter = desk.arrive(A)
    desk.die(A, second)
    assert list(desk.servers(A).values()) == ["ready", "starting"]
    desk.finish(next(ticket for ticket in held if desk.granted.get(ticket) == first))
    assert desk.granted[waiter] == first


def test_further_start_that_fails_fails_nobody_and_is_tried_again_later(desk: Desk) -> None:
    """After 1 s, then 2 s; requests are let in meanwhile."""
    waiter = [desk.arrive(A) for _ in range(3)][-1]
    desk.ready(A)
    for delay in (1, 2):
        desk.fail(A)
        assert waiter in desk.waiting
        assert desk.errors == {}
        desk.wait(delay - 0.1)
        desk.arrive(A)
        assert list(desk.servers(A).values()) == ["ready"]
        desk.wait(0.1)
        assert list(desk.servers(A).values()) == ["ready", "starting"]
    desk.settle()
    assert desk.errors == {}


def test_further_start_without_memory_evicts_nobody(desk: Desk) -> None:
    """It was to take what is free."""
    desk.have(B)
    for _ in range(3):
        desk.arrive(A)
    desk.ready(A)
    desk.fail(A, out_of_memory=True)
    assert (desk.is_(B), desk.stops) == ("ready", [])


# What is told


def test_servers_found_running_are_taken_over_up_to_as_many_as_it_may_have(desk: Desk) -> None:
    """Whoever waits is served by them."""
    assert [desk.take_over(A) for _ in range(3)] == [True, True, False]
    assert list(desk.servers(A).values()) == ["ready", "ready"]
    tickets = [desk.arrive(A) for _ in range(4)]
    assert desk.granted.keys() >= set(tickets)


def test_story_tells_of_all_servers_together(desk: Desk) -> None:
    """Of several, it is the ready one that says how the model is."""
    for _ in range(3):
        desk.arrive(A)
    desk.ready(A)
    state = desk.scheduler.state(A.model_id)
    assert state is not None
    story = explain(state, desk.now)
    assert (story.phase, story.servers, story.replicas) == ("ready", 2, 2)
    assert (story.in_flight, story.queued, story.closing) == (2, 1, None)
