"""What one event of the scheduler costs: 10,000 waiters, 100 models; and the fast path.

Run me: ``python tests/bench/scheduler.py``. Targets: p99 of an event 1 ms, a grant 10 µs.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from time import perf_counter
from typing import Any

from gglib.services.routing.planners import CountPlanner, ExclusivePlanner, MemoryPlanner, Planner
from gglib.services.routing.scheduler import (
    Action,
    Grant,
    ModelTerms,
    Policy,
    Scheduler,
    Start,
    Stop,
)

MODELS = 100
WAITERS = 10_000
EVENTS = 50_000


def measure(name: str, planner: Planner, *, replicas: int = 1) -> float:
    """Print and return the p99 of an event in seconds, with the queue kept full."""
    dice = random.Random(1)
    scheduler = Scheduler(planner, Policy(queue_limit=10**9, max_wait_s=5.0))
    models = [
        ModelTerms(
            model_id=number,
            name=str(number),
            limit=4,
            memory={"gpu": 1 + number % 3},
            replicas=replicas,
        )
        for number in range(MODELS)
    ]
    now, ticket, took = 0.0, 0, []
    granted: list[int] = []
    starting: list[int] = []
    stopping: list[int] = []

    def do(event: Callable[..., list[Action]], *args: Any) -> None:
        began = perf_counter()
        actions = event(*args)
        scheduler.next_deadline()
        took.append(perf_counter() - began)
        for action in actions:
            match action:
                case Grant(ticket=number):
                    granted.append(number)
                case Start(server=server):
                    starting.append(server)
                case Stop(server=server):
                    stopping.append(server)

    def arrive() -> None:
        nonlocal ticket
        ticket += 1
        do(scheduler.request_arrived, ticket, dice.choice(models), now)

    for _ in range(WAITERS):
        arrive()
    took.clear()
    while len(took) < EVENTS:
        now += 0.01
        due = scheduler.next_deadline()
        if due is not None and due <= now:
            do(scheduler.time_passed, now)
        if starting:
            do(scheduler.server_ready, starting.pop(), now)
        if stopping:
            do(scheduler.server_stopped, stopping.pop(), now)
        if granted:
            do(scheduler.request_finished, granted.pop(dice.randrange(len(granted))), now)
        if len(took) % 10 == 0:
            do(scheduler.request_gone, dice.randrange(ticket), now)
        arrive()
    took.sort()
    p50, p99, worst = (took[int(len(took) * share)] * 1e6 for share in (0.5, 0.99, 0.99999))
    print(f"{name:10} p50 {p50:7.1f} µs   p99 {p99:7.1f} µs   max {worst:7.1f} µs")
    return p99 / 1e6


def measure_fast_path() -> float:
    """Print and return what a grant at once and its end cost, in seconds."""
    scheduler = Scheduler(CountPlanner(5))
    models = [ModelTerms(model_id=number, name=str(number), limit=64) for number in range(5)]
    for number, model in enumerate(models):
        (start,) = scheduler.request_arrived(number, model, 0.0)
        assert isinstance(start, Start)
        scheduler.server_ready(start.server, 1.0)
        scheduler.request_finished(number, 1.0)
    rounds = 100_000
    began = perf_counter()
    for ticket in range(100, 100 + rounds):
        assert scheduler.try_grant(ticket, models[0], 2.0)
        scheduler.request_finished(ticket, 2.0)
    took = (perf_counter() - began) / rounds
    print(f"fast path  grant and end {took * 1e6:.2f} µs")
    return took


def main() -> None:
    """Measure all, and fail if a target is missed."""
    p99 = max(
        measure("exclusive", ExclusivePlanner()),
        measure("count(5)", CountPlanner(5)),
        measure("memory", MemoryPlanner({"gpu": 10})),
        measure("replicas", CountPlanner(5), replicas=3),
        measure("all there", CountPlanner(2 * MODELS), replicas=3),
    )
    fast = measure_fast_path()
    if p99 > 1e-3 or fast > 10e-6:
        raise SystemExit("a target is missed")


if __name__ == "__main__":
    main()
