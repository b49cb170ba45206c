"""A model with several runners: where it is started, and what becomes of it when one is away."""

from __future__ import annotations

import attrs
import pytest
from support.routing import Desk, spread, terms, unreachable

from gglib.errors import BreakerOpen, DoesNotFit, NodeUnreachable, NotStarted
from gglib.services.routing.explain import explain
from gglib.services.routing.planners import CountPlanner, ExclusivePlanner, MemoryPlanner
from gglib.services.routing.scheduler import ModelTerms

BUDGETS = {"box/gpu": 8, "attic/gpu": 4}
A = spread(terms(1, "a", memory={"gpu": 4}, limit=1), "box", "attic")
B = spread(terms(2, "b", memory={"gpu": 6}), "box")
C = spread(terms(3, "c", memory={"gpu": 4}), "attic")
TWICE = attrs.evolve(A, replicas=2)


@pytest.fixture
def desk() -> Desk:
    """Two machines; a model of 4 fits into both, one of 6 only into the first."""
    return Desk(MemoryPlanner(BUDGETS), budgets=BUDGETS)


def where(desk: Desk, model: ModelTerms) -> dict[str | None, str]:
    """Return the phases of a model's servers by runner, of which each has one."""
    found = [(desk.runner_of[server], its) for server, its in desk.servers(model).items()]
    assert len(dict(found)) == len(found)
    return dict(found)


def at(desk: Desk, model: ModelTerms, runner: str) -> int:
    """Return the model's server on a runner."""
    (server,) = (each for each in desk.servers(model) if desk.runner_of[each] == runner)
    return server


# Where it is started


def test_model_is_started_on_its_first_runner(desk: Desk) -> None:
    """Both would do."""
    desk.arrive(A)
    assert where(desk, A) == {"box": "starting"}


def test_model_that_does_not_fit_beside_what_runs_is_started_on_its_next_runner(
    desk: Desk,
) -> None:
    """Nobody goes for it, though one that idles would."""
    desk.have(B)
    desk.arrive(A)
    assert where(desk, A) == {"attic": "starting"}
    assert desk.is_(B) == "ready"


def test_model_that_fits_nowhere_beside_what_runs_takes_the_place_of_one_that_idles(
    desk: Desk,
) -> None:
    """On the first runner where nobody need be waited for."""
    desk.have(B, C)
    desk.arrive(B)
    desk.arrive(A)
    assert (desk.is_(B), desk.is_(C)) == ("ready", "stopping")
    desk.stopped(C)
    assert where(desk, A) == {"attic": "starting"}


def test_model_waits_for_the_first_of_its_runners_when_all_are_at_work(desk: Desk) -> None:
    """It comes there when patience is up, or elsewhere as soon as there is a place."""
    desk.have(B, C)
    held = desk.arrive(C)
    desk.arrive(B)
    desk.arrive(A)
    assert explain(desk.scheduler.state(1), desk.now).blocked_by == ("b",)  # type: ignore[arg-type]
    desk.finish(held)
    assert desk.is_(C) == "stopping"


def test_model_that_is_too_large_for_one_runner_is_started_on_another(desk: Desk) -> None:
    """It would fit there with nothing else, and not here."""
    big = spread(terms(4, "big", memory={"gpu": 6}), "attic", "box")
    desk.arrive(big)
    assert where(desk, big) == {"box": "starting"}
    # Told once, however often it is looked at.
    notes = [(note.kind, note.runner) for note in desk.scheduler.state(4).notes]  # type: ignore[union-attr]
    assert notes == [("refused", "attic"), ("started", "box")]


def test_model_that_is_too_large_for_every_runner_is_refused_with_each_ones_reason(
    desk: Desk,
) -> None:
    """One error for all of them."""
    huge = spread(terms(4, "huge", memory={"gpu": 9}), "box", "attic")
    error = desk.errors[desk.arrive(huge)]
    assert isinstance(error, NotStarted)
    assert [reason.partition(":")[0] for reason in error.reasons] == ["on box", "on attic"]
    only = spread(terms(5, "only", memory={"gpu": 9}), "box")
    assert isinstance(desk.errors[desk.arrive(only)], DoesNotFit)


def test_start_that_finds_nobody_is_tried_on_the_next_runner_at_once(desk: Desk) -> None:
    """Who waits hears nothing of it."""
    ticket = desk.arrive(A)
    desk.fail(A, unreachable("box"))
    assert where(desk, A) == {"attic": "starting"}
    desk.ready(A)
    assert ticket in desk.granted


def test_start_that_fails_for_another_reason_is_tried_on_the_next_runner_too(desk: Desk) -> None:
    """Its engine may be missing there, or its file."""
    ticket = desk.arrive(A)
    desk.fail(A)
    desk.ready(A)
    assert desk.runner_of[desk.granted[ticket]] == "attic"


def test_start_that_fails_on_every_runner_is_told_with_each_ones_reason(desk: Desk) -> None:
    """Each is tried once for those who wait."""
    ticket = desk.arrive(A)
    desk.fail(A, unreachable("box"))
    desk.fail(A)
    error = desk.errors[ticket]
    assert str(error).startswith("model 'a' was started nowhere: on box: box cannot be reached")
    assert "; on attic: " in str(error)
    assert desk.servers(A) == {}


def test_runner_that_was_away_is_tried_after_the_others_for_a_while(desk: Desk) -> None:
    """So nobody waits for its connection; then it is as good as before."""
    desk.arrive(A)
    desk.fail(A, unreachable("box"))
    desk.ready(A)
    desk.unload(A, cut=True)
    desk.stopped(A)
    first = desk.arrive(A)
    assert where(desk, A) == {"attic": "starting"}
    desk.fail(A)
    assert where(desk, A) == {"box": "starting"}
    desk.ready(A)
    assert first in desk.granted
    desk.unload(A, cut=True)
    desk.stopped(A)
    desk.wait(60)
    desk.arrive(A)
    assert where(desk, A) == {"box": "starting"}


def test_machine_that_cannot_be_reached_is_no_reason_to_refuse_the_next_request(
    desk: Desk,
) -> None:
    """It may be back at any moment, and says so itself; a start that failed there is one."""
    for _ in range(5):
        ticket = desk.arrive(B)
        desk.fail(B, unreachable("box"))
        assert isinstance(desk.errors[ticket], NodeUnreachable)
    desk.arrive(B)
    desk.fail(B)
    assert isinstance(desk.errors[desk.arrive(B)], BreakerOpen)


def test_model_is_refused_for_failed_starts_only_if_they_failed_on_every_runner(
    desk: Desk,
) -> None:
    """And the latest to fail is tried last."""
    desk.arrive(A)
    desk.fail(A)
    desk.fail(A, unreachable("attic"))
    ticket = desk.arrive(A)
    assert where(desk, A) == {"attic": "starting"}
    desk.fail(A)
    desk.fail(A)
    assert ticket in desk.errors
    refused = desk.errors[desk.arrive(A)]
    assert isinstance(refused, BreakerOpen)
    assert "on box" in str(refused)
    assert "on attic" in str(refused)


def test_runner_whose_start_failed_is_not_tried_for_every_request_while_another_is_away(
    desk: Desk,
) -> None:
    """Each is told why of both at once; when the pause is over, it is tried again."""
    desk.arrive(A)
    desk.fail(A, unreachable("box"))
    desk.fail(A)
    for _ in range(5):
        desk.wait(0.1)
        ticket = desk.arrive(A)
        desk.fail(A, unreachable("box"))
        assert desk.servers(A) == {}
        assert "on box: box cannot be reached" in str(desk.errors[ticket])
        assert "; on attic: " in str(desk.errors[ticket])
    desk.wait(1)
    desk.arrive(A)
    assert where(desk, A) == {"attic": "starting"}


def test_runner_whose_start_failed_is_not_tried_for_every_request_beside_a_server_out_of_reach(
    desk: Desk,
) -> None:
    """Nothing is started on the other's machine either."""
    desk.have(A)
    desk.lose(at(desk, A, "box"))
    desk.arrive(A)
    desk.fail(A)
    for _ in range(5):
        desk.wait(0.1)
        assert "; on attic: " in str(desk.errors[desk.arrive(A)])
    desk.wait(1)
    desk.arrive(A)
    assert where(desk, A) == {"box": "away", "attic": "starting"}


def test_who_waits_for_a_place_gets_one_where_a_start_failed_when_its_pause_is_over(
    desk: Desk,
) -> None:
    """Whoever is at work on the other runner need not go for it."""
    desk.have(B)
    desk.arrive(B)
    first = desk.arrive(A)
    desk.fail(A)
    desk.leave(first)
    desk.arrive(A)
    assert desk.servers(A) == {}
    desk.wait(1)
    assert where(desk, A) == {"attic": "starting"}
    assert desk.is_(B) == "ready"


# Further servers


def test_further_server_comes_on_a_runner_that_has_none_of_the_model(desk: Desk) -> None:
    """Though the first has room for two; a third comes there all the same."""
    thrice = attrs.evolve(A, replicas=3)
    for _ in range(4):
        desk.arrive(thrice)
    desk.ready(thrice)
    assert where(desk, thrice) == {"box": "ready", "attic": "starting"}
    desk.ready(thrice)
    assert desk.on("box") == ["ready", "starting"]


def test_further_server_comes_on_the_first_runner_if_the_other_is_full(desk: Desk) -> None:
    """Nobody goes for it."""
    desk.have(C)
    desk.arrive(TWICE)
    desk.arrive(TWICE)
    desk.ready(TWICE)
    assert desk.on("box") == ["ready", "starting"]
    assert desk.is_(C) == "ready"


def test_further_server_is_not_tried_on_a_machine_that_was_away_a_moment_ago(desk: Desk) -> None:
    """It is tried again later: there is no hurry."""
    twice = attrs.evolve(TWICE, elsewhere=A.elsewhere)
    held = [desk.arrive(twice), desk.arrive(twice)]
    desk.ready(twice)
    desk.fail(twice, unreachable("attic"))
    assert desk.on("box") == ["ready", "starting"]
    desk.ready(twice)
    assert set(held) <= desk.granted.keys()
    alone = spread(terms(5, "alone", limit=1, replicas=2), "cellar")
    desk.arrive(alone)
    desk.arrive(alone)
    desk.ready(alone)
    desk.fail(alone, unreachable("cellar"))
    assert desk.on("cellar") == ["ready"]
    desk.wait(60)
    assert desk.on("cellar") == ["ready", "starting"]


# When its machine goes away


def test_requests_go_to_another_runners_server_while_the_first_is_out_of_reach(desk: Desk) -> None:
    """It is started for them; those that waited already go there too."""
    held, waiter = desk.arrive(A), desk.arrive(A)
    desk.ready(A)
    desk.lose(at(desk, A, "box"))
    assert where(desk, A) == {"box": "away", "attic": "starting"}
    assert held not in desk.granted
    desk.ready(A)
    assert desk.runner_of[desk.granted[waiter]] == "attic"
    assert desk.arrive(A) in desk.waiting


def test_replica_elsewhere_serves_on_when_a_server_is_out_of_reach(desk: Desk) -> None:
    """Without a start."""
    desk.arrive(TWICE)
    desk.arrive(TWICE)
    desk.ready(TWICE)
    desk.ready(TWICE)
    desk.finish(*desk.granted)
    desk.lose(at(desk, TWICE, "box"))
    assert desk.runner_of[desk.granted[desk.arrive(TWICE)]] == "attic"
    assert len(desk.starts) == 2


def test_model_without_another_runner_waits_for_its_own(desk: Desk) -> None:
    """Whoever asks for it finds out by itself whether there is a way, as ever."""
    desk.have(B)
    desk.lose(at(desk, B, "box"))
    assert where(desk, B) == {"box": "ready"}
    assert desk.arrive(B) in desk.granted


def test_all_servers_of_a_machine_are_out_of_reach_together(desk: Desk) -> None:
    """One tells of the others."""
    other = spread(terms(4, "other", memory={"gpu": 4}), "box", "attic")
    desk.have(A, other)
    assert where(desk, other) == {"box": "ready"}
    desk.lose(at(desk, A, "box"))
    desk.arrive(other)
    assert where(desk, other) == {"box": "away", "attic": "starting"}


def test_request_is_told_why_when_the_other_runner_cannot_serve_it_either(desk: Desk) -> None:
    """No second server is tried on the machine whose first may still run."""
    desk.have(A)
    desk.lose(at(desk, A, "box"))
    ticket = desk.arrive(A)
    desk.fail(A)
    assert "on box: box cannot be reached" in str(desk.errors[ticket])
    assert where(desk, A) == {"box": "away"}


def test_server_that_is_found_again_serves(desk: Desk) -> None:
    """It was never taken for dead."""
    desk.have(A)
    desk.lose(at(desk, A, "box"))
    desk.wait(600)
    desk.find(at(desk, A, "box"))
    assert desk.arrive(A) in desk.granted
    assert len(desk.starts) == 1


def test_server_that_is_found_again_counts_as_a_replica(desk: Desk) -> None:
    """As one of the two that the model may have."""
    desk.have(TWICE)
    desk.lose(at(desk, TWICE, "box"))
    desk.arrive(TWICE)
    desk.ready(TWICE)
    desk.find(at(desk, TWICE, "box"))
    assert where(desk, TWICE) == {"box": "ready", "attic": "ready"}
    assert desk.arrive(TWICE) in desk.granted


def test_server_that_is_found_again_goes_if_another_has_taken_its_place(desk: Desk) -> None:
    """The one at work stays."""
    desk.have(A)
    desk.lose(at(desk, A, "box"))
    desk.arrive(A)
    desk.ready(A)
    desk.find(at(desk, A, "box"))
    assert where(desk, A) == {"box": "stopping", "attic": "ready"}
    desk.stopped(A)
    assert desk.scheduler.tally.evictions == {"surplus": 1}


def test_start_in_its_place_is_called_off_when_a_server_is_found_again(desk: Desk) -> None:
    """Whoever waits is served at once."""
    desk.have(A)
    desk.lose(at(desk, A, "box"))
    ticket = desk.arrive(A)
    desk.find(at(desk, A, "box"))
    assert where(desk, A) == {"box": "ready", "attic": "stopping"}
    assert ticket in desk.granted


def test_server_that_died_out_of_reach_counts_as_no_crash(desk: Desk) -> None:
    """Its machine was started anew, say: the next start is not put off."""
    for _ in range(3):
        desk.have(A)
        server = at(desk, A, "box")
        desk.lose(server)
        desk.die(A, server)
        desk.wait(60)
    desk.arrive(A)
    assert where(desk, A) == {"box": "starting"}


def test_server_out_of_reach_keeps_its_memory(desk: Desk) -> None:
    """It may run on; who is started there beside it must fit."""
    desk.have(A)
    desk.lose(at(desk, A, "box"))
    desk.wait(60)
    other = spread(terms(4, "other", memory={"gpu": 8}), "box")
    desk.arrive(other)
    assert where(desk, A) == {"box": "stopping"}
    assert desk.servers(other) == {}


def test_server_out_of_reach_yields_the_only_place(desk: Desk) -> None:
    """One at a time is one at a time."""
    desk = Desk(ExclusivePlanner(), places=1)
    desk.have(A)
    desk.lose(at(desk, A, "box"))
    desk.arrive(A)
    assert where(desk, A) == {"box": "stopping"}
    desk.stopped(A)
    assert where(desk, A) == {"attic": "starting"}


def test_model_is_unloaded_where_it_cannot_be_reached(desk: Desk) -> None:
    """Its runner ends it when it can; drained, too."""
    for end in (desk.unload, desk.drain):
        desk.have(A)
        desk.lose(at(desk, A, "box"))
        end(A)
        assert where(desk, A) == {"box": "stopping"}
        desk.stopped(A)
        desk.wait(60)


def test_server_that_was_on_its_way_out_goes_when_it_is_out_of_reach() -> None:
    """Whoever waits for its place gets it."""
    desk = Desk(CountPlanner(1), places=1)
    desk.arrive(A)
    desk.ready(A)
    desk.arrive(C)
    desk.wait(100)
    desk.lose(at(desk, A, "box"))
    assert where(desk, A) == {"box": "stopping"}
    desk.stopped(A)
    assert desk.is_(C) == "starting"
