"""FACTS' workloads against our scheduler and three others: one slot, four requests in parallel.

Run me: I print a table of waits, makespan and swaps, and draw ``docs/explanation/scheduling.svg``
with ``--plot``.
"""

from __future__ import annotations

import heapq
import random
import sys
from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path

import attrs

from gglib.services.routing.actions import Action, Grant, Start, Stop
from gglib.services.routing.planners import ExclusivePlanner
from gglib.services.routing.scheduler import ModelTerms, Policy, Scheduler

__all__ = ["POLICIES", "WORKLOADS", "Run", "Workload", "run_policy"]

PARALLEL = 4
SERVICE_S = 1.5
STOP_S = 0.3


@attrs.frozen
class Workload:
    """Poisson arrivals at ``rate`` per second for ``lasts_s``."""

    models: int
    popularity: float
    """The first model is asked for so many times as often as each other."""
    load_s: float
    rate: float
    lasts_s: float

    @property
    def utilisation(self) -> float:
        """The share of the one resident's time that answers alone take."""
        return self.rate * SERVICE_S / PARALLEL

    def __str__(self) -> str:
        return f"{self.models}, {self.popularity:g}:1, {self.load_s:g} s, {self.rate:g}/s"

    def arrivals(self) -> list[tuple[float, int, float]]:
        """Return when each request comes, for which model, and how long its answer takes."""
        dice = random.Random(1)
        weights = [self.popularity] + [1.0] * (self.models - 1)
        found, at = [], 0.0
        while (at := at + dice.expovariate(self.rate)) < self.lasts_s:
            model = dice.choices(range(self.models), weights)[0]
            found.append((at, model, dice.expovariate(1 / SERVICE_S)))
        return found


WORKLOADS = [
    Workload(2, 3, 1, 2.0, 600),
    Workload(2, 20, 1, 2.2, 600),
    Workload(2, 20, 10, 2.2, 1200),
    Workload(2, 20, 10, 1.6, 1800),
    Workload(2, 20, 30, 1.6, 3600),
    Workload(2, 3, 10, 1.2, 1800),
    Workload(5, 3, 5, 0.8, 1800),
    Workload(8, 3, 30, 0.3, 3600),
]


@attrs.frozen
class Run:
    """What came of a workload."""

    waits: list[float]
    """Of each request, in the order in which they came."""
    models: list[int]
    makespan: float
    """From the first arrival's clock to the last answer's end."""
    swaps: int

    @property
    def mean(self) -> float:
        """The mean wait."""
        return sum(self.waits) / len(self.waits)

    def percentile(self, share: float) -> float:
        """Return the wait that so large a share of the requests did not exceed."""
        return sorted(self.waits)[min(len(self.waits) - 1, int(share * len(self.waits)))]


class Place:
    """The one place, and its timeline: a policy says what to do, this does it."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.now = 0.0
        self.requests = workload.arrivals()
        self.waits = [0.0] * len(self.requests)
        self.swaps = 0
        self.finished_at = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Have something happen."""
        self._count += 1
        heapq.heappush(self._events, (when, self._count, what))

    def grant(self, ticket: int, finished: Callable[[], None]) -> None:
        """Let a request's answer begin."""
        came, _, takes = self.requests[ticket]
        self.waits[ticket] = self.now - came
        self.finished_at = max(self.finished_at, self.now + takes)
        self.at(self.now + takes, finished)

    def run(self, arrived: Callable[[int], None]) -> Run:
        """Let everything happen."""
        for ticket, (came, _, _) in enumerate(self.requests):
            self.at(came, lambda ticket=ticket: arrived(ticket))  # type: ignore[misc]
        while self._events:
            self.now, _, what = heapq.heappop(self._events)
            what()
        models = [model for _, model, _ in self.requests]
        return Run(self.waits, models, self.finished_at, self.swaps)


class Ours:
    """The real scheduler."""

    def __init__(self, place: Place, *, factor: float = 8.0, cap_s: float = 120.0) -> None:
        self.place = place
        workload = place.workload
        policy = Policy(queue_limit=10**9, patience_factor=factor, max_wait_s=cap_s)
        self.scheduler = Scheduler(ExclusivePlanner(), policy)
        size = int(max(0.0, workload.load_s - 1) * 2e9)
        self.terms = [
            ModelTerms(model_id=number, name=str(number), limit=PARALLEL, size_bytes=size)
            for number in range(workload.models)
        ]
        self.alarm = float("inf")
        self.policy = policy
        self.waiting: OrderedDict[int, int] = OrderedDict()
        self.became_ready_at: dict[int, float] = {}

    def check_bound(self, ticket: int) -> None:
        """Nobody who came after the gate is served while another's patience is up."""
        place = self.place
        came, model, _ = place.requests[ticket]
        if came <= self.became_ready_at[model]:
            return
        others = (other for other, its in self.waiting.items() if its != model)
        oldest = next(others, None)
        if oldest is not None:
            patience_s = self.policy.patience_s(STOP_S + place.workload.load_s)
            waited_s = place.now - place.requests[oldest][0]
            assert waited_s <= patience_s + 1e-6, f"{oldest} waits for {waited_s} s"

    def arrived(self, ticket: int) -> None:
        model = self.place.requests[ticket][1]
        self.waiting[ticket] = model
        self.do(self.scheduler.request_arrived(ticket, self.terms[model], self.place.now))

    def do(self, actions: list[Action]) -> None:
        place, scheduler = self.place, self.scheduler
        for action in actions:
            match action:
                case Grant(ticket=ticket):
                    del self.waiting[ticket]
                    self.check_bound(ticket)
                    place.grant(
                        ticket,
                        lambda ticket=ticket: self.do(  # type: ignore[misc]
                            scheduler.request_finished(ticket, place.now)
                        ),
                    )
                case Start(server=server, model_id=model):
                    place.swaps += 1
                    place.at(
                        place.now + place.workload.load_s,
                        lambda server=server, model=model: self.ready(server, model),  # type: ignore[misc]
                    )
                case Stop(server=server):
                    place.at(
                        place.now + STOP_S,
                        lambda server=server: self.do(  # type: ignore[misc]
                            scheduler.server_stopped(server, place.now)
                        ),
                    )
                case _:
                    raise AssertionError(action)
        due = scheduler.next_deadline()
        if due is not None and due != self.alarm:
            self.alarm = due
            place.at(max(due, place.now), self.wake)

    def wake(self) -> None:
        self.alarm = float("inf")
        self.do(self.scheduler.time_passed(self.place.now))

    def ready(self, server: int, model: int) -> None:
        self.became_ready_at[model] = self.place.now
        self.do(self.scheduler.server_ready(server, self.place.now))


class Other:
    """What others do: one resident; subclasses say who is next and when it must go."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.queues: dict[int, deque[int]] = {
            model: deque() for model in range(place.workload.models)
        }
        self.order: OrderedDict[int, int] = OrderedDict()
        self.resident: int | None = None
        self.changing = False
        self.in_flight = 0
        self.others_since: float | None = None

    def may_serve(self) -> bool:
        """Whether the resident may take its next request."""
        raise NotImplementedError

    def arrived(self, ticket: int) -> None:
        model = self.place.requests[ticket][1]
        self.queues[model].append(ticket)
        self.order[ticket] = model
        self.step()

    def step(self) -> None:
        if self.changing:
            return
        resident = self.resident
        others = resident is None or len(self.order) > len(self.queues[resident])
        if not others:
            self.others_since = None
        elif self.others_since is None:
            self.others_since = self.place.now
        if resident is not None:
            queue = self.queues[resident]
            while queue and self.in_flight < PARALLEL and self.may_serve():
                ticket = queue.popleft()
                del self.order[ticket]
                self.in_flight += 1
                self.place.grant(ticket, self.finished)
            stays = bool(queue) and self.may_serve()
            if self.in_flight or stays or not self.order or not others:
                return
        if self.order:
            target = next(
                (model for model in self.order.values() if model != resident),
                next(iter(self.order.values())),
            )
            self.changing = True
            stop_s = 0.0 if resident is None else STOP_S
            delay = stop_s + self.place.workload.load_s
            self.place.at(self.place.now + delay, lambda: self.became_ready(target))

    def became_ready(self, model: int) -> None:
        self.resident, self.changing, self.others_since = model, False, None
        self.place.swaps += 1
        self.step()

    def finished(self) -> None:
        self.in_flight -= 1
        self.step()


class Fifo(Other):
    """Strict order: the oldest request of all is next, whatever it costs."""

    def may_serve(self) -> bool:
        return next(iter(self.order.values())) == self.resident


class ReadyFirst(Other):
    """The resident serves for as long as it has work."""

    def may_serve(self) -> bool:
        return True


class Slice(Other):
    """Once others wait, the resident serves for twice the cost of a swap."""

    def may_serve(self) -> bool:
        limit_s = 2 * (STOP_S + self.place.workload.load_s)
        return self.others_since is None or self.place.now - self.others_since < limit_s


POLICIES: dict[str, Callable[[Place], Ours | Other]] = {
    "FIFO": Fifo,
    "ready-first": ReadyFirst,
    "slice": Slice,
    "gglib": Ours,
}


def run_policy(workload: Workload, policy: str) -> Run:
    """Let a policy serve a workload."""
    place = Place(workload)
    return place.run(POLICIES[policy](place).arrived)


def main() -> None:
    """Print the table, and draw the plot if asked to."""
    print(
        "| models, popularity, load, rate | utilisation | policy | p50 | mean | p99 | max "
        "| makespan | swaps |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    runs = {}
    for workload in WORKLOADS:
        for policy in POLICIES:
            run = runs[workload, policy] = run_policy(workload, policy)
            print(
                f"| {workload} | {workload.utilisation:.2f} | {policy} "
                f"| {run.percentile(0.5):.1f} | {run.mean:.1f} | {run.percentile(0.99):.0f} "
                f"| {max(run.waits):.0f} | {run.makespan:.0f} | {run.swaps} |"
            )
    if "--plot" in sys.argv:
        from simulation.plot import draw

        page = Path(__file__).parents[2] / "docs" / "explanation"
        (page / "scheduling.svg").write_text(draw(runs), encoding="utf-8")


if __name__ == "__main__":
    main()
