"""``gglib why``: what it says of a model's story."""

from __future__ import annotations

from typing import Any

import msgspec
from support.routing import Desk, spread, terms, unreachable

from gglib.cli.why import _DONE, sentences
from gglib.services.routing.explain import explain
from gglib.services.routing.planners import CountPlanner, ExclusivePlanner
from gglib.services.routing.state import NoteKind

A, B = terms(1, "a"), terms(2, "b")


def story(desk: Desk, number: int) -> dict[str, Any]:
    """Return a model's story as it comes over HTTP."""
    state = desk.scheduler.state(number)
    assert state is not None
    told: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(explain(state, desk.now)))
    return told


def test_waiting_and_resident_models_tell_of_each_other() -> None:
    """Who is in the way, until when; and who wants the place."""
    desk = Desk(ExclusivePlanner())
    desk.have(A)
    busy = desk.arrive(A)
    desk.arrive(B)
    desk.wait(3)
    assert sentences("b", story(desk, 2)) == [
        "b is not in memory: 0 in flight, 1 waiting",
        "the next one has waited for 3s",
        "in its way: a; they take no new requests in 5s",
    ]
    assert sentences("a", story(desk, 1))[:2] == [
        "a is ready: 1 in flight, 0 waiting",
        "b waits for its place; in 5s it takes no new requests",
    ]
    desk.finish(busy)
    assert sentences("a", story(desk, 1))[-1] == "0s ago it was evicted for 'b'"
    assert "they end what they are answering" in sentences("b", story(desk, 2))[2]


def test_model_that_may_have_several_servers_tells_how_many_it_has() -> None:
    """Of how many; and what all of them have in flight."""
    model = terms(1, "a", limit=1, replicas=3)
    desk = Desk(CountPlanner(3))
    for _ in range(3):
        desk.arrive(model)
    desk.ready(model)
    desk.ready(model)
    said = sentences("a", story(desk, 1))[0]
    assert said == "a is ready on 3 of 3 servers: 2 in flight, 1 waiting"


def test_model_with_several_runners_tells_what_it_has_on_each() -> None:
    """And why not, and where everything happened."""
    model = spread(terms(1, "a"), "box", "attic")
    desk = Desk(CountPlanner(3))
    desk.arrive(model)
    desk.fail(model, unreachable("box"))
    desk.ready(model)
    state = desk.scheduler.state(1)
    assert state is not None
    told = msgspec.json.encode(explain(state, desk.now, runners=("box", "attic")))
    reason = "box cannot be reached (connect): no answer; is it on?"
    assert sentences("a", msgspec.json.decode(told)) == [
        "a is ready: 1 in flight, 0 waiting",
        f"on box: no server; {reason}",
        "on attic: ready",
        "0s ago it started on box",
        f"0s ago it failed to start on box: {reason}",
        "0s ago it started on attic",
        "0s ago it became ready on attic",
    ]


def test_model_that_nobody_asked_for_has_no_story() -> None:
    """It says so."""
    assert sentences("a", None) == ["nobody has asked for a since the gateway started"]


def test_every_kind_of_event_can_be_told() -> None:
    """None is forgotten."""
    assert set(_DONE) == {str(kind) for kind in NoteKind}
