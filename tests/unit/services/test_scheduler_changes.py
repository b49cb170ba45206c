"""A new configuration: models that are to be otherwise, or are no more, and other rules."""

from __future__ import annotations

import attrs
import pytest
from support.routing import Desk, terms

from gglib.services.routing.planners import CountPlanner
from gglib.services.routing.scheduler import Policy
from gglib.services.routing.state import NoteKind

A, B = terms(1, "a", limit=2), terms(2, "b")


@pytest.fixture
def desk() -> Desk:
    """Three servers at a time."""
    return Desk(CountPlanner(3), places=3)


def test_changed_model_serves_who_waits_and_starts_anew_for_who_comes(desk: Desk) -> None:
    """Nothing is cut; the old server takes nobody who comes after the change."""
    working = [desk.arrive(A), desk.arrive(A)]
    desk.ready(A)
    waiting = desk.arrive(A)
    desk.change(A, anew=True)
    later = desk.arrive(A)
    desk.finish(working[0])
    assert waiting in desk.granted
    desk.finish(working[1], waiting)
    assert desk.is_(A) == "stopping"
    desk.stopped(A)
    assert desk.is_(A) == "starting"
    desk.ready(A)
    assert later in desk.granted
    state = desk.scheduler.state(A.model_id)
    assert state is not None
    assert NoteKind.CHANGED in [note.kind for note in state.notes]


def test_changed_model_that_starts_is_started_anew_for_the_same_waiters(desk: Desk) -> None:
    """They get no error."""
    waiting = desk.arrive(A)
    desk.change(A, anew=True)
    assert desk.is_(A) == "stopping"
    desk.stopped(A)
    desk.ready(A)
    assert waiting in desk.granted


def test_idle_changed_model_goes_at_once(desk: Desk) -> None:
    """Nobody asks for it, and nobody is served by what it was."""
    desk.have(A)
    desk.change(A, anew=True)
    assert desk.is_(A) == "stopping"


def test_change_forgives_a_start_that_failed(desk: Desk) -> None:
    """What it was is no reason to refuse what it is."""
    desk.arrive(A)
    desk.fail(A)
    desk.change(A, anew=True)
    waiting = desk.arrive(A)
    assert waiting in desk.waiting
    assert desk.is_(A) == "starting"


def test_higher_limit_holds_for_who_waits(desk: Desk) -> None:
    """At once, without another start."""
    first, second, third = (desk.arrive(A) for _ in range(3))
    desk.ready(A, slots=3)
    assert {first, second} == desk.granted.keys()
    desk.change(attrs.evolve(A, limit=None))
    assert third in desk.granted
    assert desk.is_(A) == "ready"
    fourth = desk.arrive(attrs.evolve(A, limit=None))
    assert fourth in desk.waiting, "it has as many as it has slots"


def test_lower_limit_cuts_nothing(desk: Desk) -> None:
    """What is in flight goes on; the next waits until there is room."""
    one = attrs.evolve(A, limit=1)
    first, second = desk.arrive(A), desk.arrive(A)
    desk.ready(A)
    desk.change(one)
    third = desk.arrive(one)
    desk.finish(first)
    assert third in desk.waiting
    desk.finish(second)
    assert third in desk.granted


def test_model_with_fewer_replicas_lets_the_idlest_go(desk: Desk) -> None:
    """The busy one stays, whatever its age."""
    two = attrs.evolve(A, limit=1, replicas=2)
    first, second = desk.arrive(two), desk.arrive(two)
    desk.ready(two)
    desk.ready(two)
    kept = desk.granted[second]
    desk.finish(first)
    desk.change(attrs.evolve(two, replicas=1))
    servers = desk.servers(two)
    assert servers.pop(kept) == "ready"
    assert list(servers.values()) == ["stopping"]


def test_retired_model_serves_who_waits_and_goes(desk: Desk) -> None:
    """Those who wait for its start, too."""
    working, second = desk.arrive(A), desk.arrive(A)
    desk.ready(A)
    waiting = desk.arrive(A)
    starting = desk.arrive(B)
    desk.retire(A)
    desk.retire(B)
    desk.ready(B)
    assert starting in desk.granted
    desk.finish(working, second, starting)
    assert waiting in desk.granted
    desk.finish(waiting)
    assert (desk.is_(A), desk.is_(B)) == ("stopping", "stopping")


def test_retired_model_that_is_pinned_goes(desk: Desk) -> None:
    """Nobody can ask for what it is kept for."""
    desk.have(A)
    desk.pin(A)
    desk.retire(A)
    assert desk.is_(A) == "stopping"


def test_retired_model_that_comes_back_stays(desk: Desk) -> None:
    """Its next server is one like others."""
    desk.have(A)
    desk.retire(A)
    desk.stopped(A)
    desk.change(A)
    desk.have(A)
    assert desk.is_(A) == "ready"


def test_model_that_nobody_asked_for_is_no_matter(desk: Desk) -> None:
    """There is nothing to change."""
    desk.change(A, anew=True)
    desk.retire(A)
    assert desk.scheduler.is_idle


def test_other_planner_lets_those_start_who_wait(desk: Desk) -> None:
    """And is asked for everybody from then on."""
    desk = Desk(CountPlanner(1))
    desk.have(A)
    working, waiting = desk.arrive(A), desk.arrive(B)
    assert desk.is_(B) is None
    desk._do(desk.scheduler.set_policy(Policy(), CountPlanner(2), desk.now))
    assert desk.is_(B) == "starting"
    desk.ready(B)
    assert {working, waiting} == desk.granted.keys()


def test_shorter_queue_throws_nobody_out(desk: Desk) -> None:
    """It refuses the next."""
    first, second = desk.arrive(A), desk.arrive(A)
    desk._do(desk.scheduler.set_policy(Policy(queue_limit=1), CountPlanner(3), desk.now))
    third = desk.arrive(A)
    assert third in desk.errors
    desk.ready(A)
    assert {first, second} == desk.granted.keys()
