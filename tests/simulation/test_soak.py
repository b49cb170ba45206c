"""Long random lives of a scheduler: every action checked, and everybody served in the end."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import cycle

import pytest
from support.routing import DESKS, MODELS, REPLICATED, Desk, terms

from gglib.errors import DoesNotFit
from gglib.services.routing.planners import MemoryPlanner
from gglib.services.routing.scheduler import ModelTerms


def live(desk: Desk, models: Sequence[ModelTerms], dice: random.Random, events: int) -> None:
    """Have ``events`` random things happen, with more requests than the servers can take."""
    for _ in range(events):
        waiting, granted = desk.waiting, desk.granted
        servers = list(desk.phases.items())
        server, phase = dice.choice(servers) if servers else (0, "none")
        model = desk.models[desk.model_of[server]] if servers else models[0]
        match dice.choices(
            ("arrive", "finish", "server", "time", "leave", "die", "fail", "admin"),
            (40, 36, 12, 8, 3, 0.3, 0.4, 0.3),
        )[0]:
            case "arrive":
                desk.arrive(
                    dice.choice(models),
                    priority=dice.choice((None, None, None, -1)),
                    session=dice.choice((None, "s", "t")),
                )
            case "finish" if granted:
                desk.finish(dice.choice(list(granted)))
            case "server" if phase == "starting":
                desk.ready(model, dice.choice((None, 1, 3)))
            case "server" if phase == "stopping":
                desk.stopped(model, server)
            case "time":
                desk.wait(dice.expovariate(2.0))
            case "leave" if waiting or granted:
                desk.leave(dice.choice([*waiting, *granted]))
            case "die" if phase == "ready":
                desk.die(model, server)
            case "fail" if phase == "starting":
                desk.fail(model, out_of_memory=dice.random() < 0.5)
            case "admin":
                act = dice.choice((desk.unload, desk.drain))
                act(dice.choice(models))


def check_life(kind: str, seed: int, events: int) -> None:
    """Live, then let everything come to its end."""
    desk = DESKS[kind](queue_limit=64, max_wait_s=4.0)
    live(desk, (MODELS, REPLICATED)[seed % 2], random.Random(seed), events)
    desk.settle()
    assert not desk.waiting
    desk.shut_down()
    desk.settle()
    assert desk.scheduler.is_idle
    assert not desk.phases


@pytest.mark.parametrize("kind", sorted(DESKS))
@pytest.mark.parametrize("seed", range(4))
def test_random_life_breaks_no_rule_and_leaves_nobody(kind: str, seed: int) -> None:
    """A slice of the soak below."""
    check_life(kind, seed, 1_500)


@pytest.mark.soak
def test_million_events_break_no_rule_and_leave_nobody() -> None:
    """All planners, and a new life every thousand events."""
    kinds = cycle(sorted(DESKS))
    for seed in range(1_000):
        check_life(next(kinds), 1_000_000 + seed, 1_000)


@pytest.mark.soak
def test_ten_thousand_lives_never_exceed_a_budget() -> None:
    """The desk adds up what runs, by device, at every start."""
    for seed in range(10_000):
        check_life("memory", seed, 60)


def check_memory_workload(seed: int) -> None:
    """Live on a machine of random devices, with models of random needs."""
    dice = random.Random(seed)
    devices = ["cpu", "cuda0", "cuda1"][: dice.randint(1, 3)]
    budgets = {device: dice.randint(4, 40) for device in devices}
    models = [
        terms(
            number,
            memory={
                device: dice.randint(0, budgets[device] + 2)
                for device in dice.sample(devices, dice.randint(1, len(devices)))
            },
            replicas=dice.choice((1, 1, 3)),
            limit=dice.choice((None, 1, 2)),
            priority=dice.choice((0, 0, 1)),
            pinned=dice.random() < 0.05,
        )
        for number in range(1, dice.randint(3, 8))
    ]
    desk = Desk(MemoryPlanner(budgets), budgets=budgets, queue_limit=64, max_wait_s=4.0)
    live(desk, models, dice, 80)
    for error in desk.errors.values():
        if isinstance(error, DoesNotFit):
            assert error.needed_bytes > error.available_bytes
            assert error.device in budgets
    desk.settle()
    desk.shut_down()
    desk.settle()
    assert desk.scheduler.is_idle


@pytest.mark.parametrize(
    "workloads", [200, pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.timeout(600)])]
)
def test_what_runs_never_needs_more_than_the_budgets(workloads: int) -> None:
    """On any device, at any moment; who is refused needs more than there is."""
    for seed in range(workloads):
        check_memory_workload(seed)
