"""A scheduler at work: what it does is carried out on paper, and checked against the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import attrs

from gglib.errors import GglibError, NodeUnreachable, StartFailed
from gglib.services.routing.planners import (
    CappedPlanner,
    CountPlanner,
    ExclusivePlanner,
    Group,
    GroupsPlanner,
    MatrixPlanner,
    MemoryPlanner,
    Planner,
)
from gglib.services.routing.scheduler import (
    Action,
    Await,
    Grant,
    ModelTerms,
    Policy,
    Reject,
    Scheduler,
    Start,
    Stop,
)

__all__ = ["DESKS", "MODELS", "REPLICATED", "SPREAD", "Desk", "spread", "terms", "unreachable"]


def terms(number: int, name: str | None = None, **fields: object) -> ModelTerms:
    """Return terms of a model that loads in 1 s, as far as is known."""
    return ModelTerms(model_id=number, name=name or f"model-{number}", **fields)  # type: ignore[arg-type]


def spread(model: ModelTerms, *runners: str) -> ModelTerms:
    """Return the model with these runners, each with devices of its own."""
    first, *others = (
        attrs.evolve(
            model,
            runner=runner,
            memory={f"{runner}/{device}": size for device, size in model.memory.items()},
        )
        for runner in runners
    )
    return attrs.evolve(first, elsewhere=tuple(others))


class Desk:
    """Drives a scheduler by hand, and keeps books of its own: every action is checked."""

    def __init__(
        self,
        planner: Planner,
        *,
        places: int | None = None,
        models: int | None = None,
        budgets: Mapping[str, int] | None = None,
        **policy: object,
    ) -> None:
        """``places`` for servers, different ``models``, ``budgets``: never exceeded."""
        self.scheduler = Scheduler(planner, Policy(**policy))  # type: ignore[arg-type]
        self.now = 100.0
        self.models: dict[int, ModelTerms] = {}
        self.waiting: dict[int, int] = {}
        """Ticket to model."""
        self.granted: dict[int, int] = {}
        """Ticket to server."""
        self.errors: dict[int, GglibError] = {}
        self.ended: set[int] = set()
        self.phases: dict[int, str] = {}
        self.model_of: dict[int, int] = {}
        self.runner_of: dict[int, str | None] = {}
        self.starts: list[int] = []
        self.stops: list[int] = []
        self.cut: list[int] = []
        self.may_cut = False
        self.lost: set[int] = set()
        """Servers that are to end, and that nobody could tell so."""
        self._places = places
        self._models_at_once = models
        self._slots: dict[int, int | None] = {}
        self._budgets = budgets
        self._loads: set[int] = set()
        self._tickets = count(1)

    # Events

    def arrive(self, model: ModelTerms, **how: object) -> int:
        """Have a request arrive; its ticket."""
        ticket = next(self._tickets)
        self.models[model.model_id] = model
        self.waiting[ticket] = model.model_id
        if how.get("loads_only"):
            self._loads.add(ticket)
        self._do(self.scheduler.request_arrived(ticket, model, self.now, **how))  # type: ignore[arg-type]
        return ticket

    def leave(self, ticket: int) -> None:
        """Have a client go away."""
        self.waiting.pop(ticket, None)
        self.granted.pop(ticket, None)
        self.ended.add(ticket)
        self._do(self.scheduler.request_gone(ticket, self.now))

    def finish(self, *tickets: int) -> None:
        """Have answers end."""
        for ticket in tickets:
            del self.granted[ticket]
            self.ended.add(ticket)
            actions = self.scheduler.request_finished(ticket, self.now)
            # A driver that has nothing to carry out goes by a glance at the deadline.
            glance, due = self.scheduler.deadline, self.scheduler.next_deadline()
            assert actions or due is None or glance <= due, "an alarm that is never set"
            self._do(actions)

    def ready(self, model: ModelTerms, slots: int | None = None) -> None:
        """Have the model's start succeed."""
        server = self.server(model, "starting")
        self.phases[server] = "ready"
        self._slots[server] = slots
        self._do(self.scheduler.server_ready(server, self.now, slots=slots))

    def fail(
        self,
        model: ModelTerms,
        error: GglibError | None = None,
        *,
        out_of_memory: bool = False,
    ) -> GglibError:
        """Have the model's start fail."""
        server = self.server(model, "starting")
        del self.phases[server]
        error = error or StartFailed(model.name, 1, ("no",))
        self._do(self.scheduler.server_failed(server, error, self.now, out_of_memory=out_of_memory))
        return error

    def lose(self, server: int) -> None:
        """Have the way to the machine of a server be cut; what is in flight ends."""
        before, self.may_cut = self.may_cut, True
        runner = self.runner_of[server]
        self._do(self.scheduler.server_away(server, unreachable(runner), self.now))
        self.may_cut = before
        for lost, phase in list(self.phases.items()):
            if phase == "away":
                self._drop_leases(lost)

    def find(self, server: int) -> None:
        """Have there be a way to a server again."""
        if self.phases[server] == "away":
            # It is stopped at once, or takes requests as it did.
            self.phases[server] = "ready"
            self._do(self.scheduler.server_back(server, self.now))

    def die(self, model: ModelTerms, server: int | None = None) -> None:
        """Have the model's server end by itself; of several, say which."""
        server = self.server(model, "ready") if server is None else server
        del self.phases[server]
        self._do(self.scheduler.server_died(server, self.now))
        self._drop_leases(server)

    def sicken(self, model: ModelTerms, server: int | None = None) -> None:
        """Have the model's server no longer answer; of several, say which."""
        server = self.server(model, "ready") if server is None else server
        before, self.may_cut = self.may_cut, True
        self._do(self.scheduler.server_unhealthy(server, self.now))
        self.may_cut = before

    def stopped(self, model: ModelTerms, server: int | None = None) -> None:
        """Have the model's stop end; of several, say which."""
        server = self.server(model, "stopping") if server is None else server
        del self.phases[server]
        self._do(self.scheduler.server_stopped(server, self.now))
        self._drop_leases(server)

    def unload(self, model: ModelTerms, *, cut: bool = False) -> None:
        """Have an administrator unload a model."""
        self.may_cut = cut
        self._do(self.scheduler.unload(model.model_id, self.now, cut=cut))
        self.may_cut = False

    def drain(self, model: ModelTerms) -> None:
        """Have an administrator drain a model."""
        self._do(self.scheduler.drain(model.model_id, self.now))

    def change(self, model: ModelTerms, *, anew: bool = False) -> None:
        """Have the model's definition change; ``anew``: so that its servers will not do."""
        self.models[model.model_id] = model
        self._do(self.scheduler.change(model, self.now, afresh=anew))
        for server in self.servers(model) if anew else ():
            self._do(self.scheduler.model_changed(server, self.now))

    def retire(self, model: ModelTerms) -> None:
        """Have nobody be able to ask for a model any more."""
        self.scheduler.set_retired(model.model_id, True)
        for server, phase in self.servers(model).items():
            if phase == "ready":
                self._do(self.scheduler.model_changed(server, self.now))

    def pin(self, model: ModelTerms, pinned: bool = True) -> None:
        """Have an administrator pin a model."""
        self.models[model.model_id] = model
        self._do(self.scheduler.set_pinned(model, pinned, self.now))

    def keep(self, model: ModelTerms, ttl_s: float | None) -> None:
        """Have somebody ask that the model goes after so long without work."""
        self._do(self.scheduler.set_ttl(model.model_id, ttl_s, self.now))

    def take_over(self, model: ModelTerms, slots: int | None = None) -> bool:
        """Have a server of the model be found running; whether it is taken over."""
        taken = self.scheduler.take_over(model, self.now, slots=slots)
        if taken is None:
            return False
        server, actions = taken
        self.models[model.model_id] = model
        self.model_of[server], self.phases[server] = model.model_id, "ready"
        self._slots[server] = slots
        self._do(actions)
        return True

    def shut_down(self, **how: float) -> None:
        """Have everything end."""
        self.may_cut = "deadline" in how
        self._do(self.scheduler.shutdown(self.now, **how))

    def wait(self, seconds: float) -> None:
        """Have time pass, with an alarm whenever the scheduler wants one."""
        until = self.now + seconds
        while (due := self.scheduler.next_deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            self._do(self.scheduler.time_passed(self.now))
            again = self.scheduler.next_deadline()
            assert again is None or again > self.now, "an alarm that changes nothing"
        self.now = until

    def have(self, *models: ModelTerms) -> None:
        """Load models one after another, and use each once."""
        for model in models:
            self.now += 0.001
            ticket = self.arrive(model)
            if ticket not in self.granted:
                self.ready(model)
            self.finish(ticket)

    def settle(self) -> None:
        """Let all that is under way come to its end, until nothing but time would change."""
        for _ in range(2000):
            for server, phase in list(self.phases.items()):
                model = self.models[self.model_of[server]]
                if self.phases.get(server) != phase:
                    continue
                if phase == "starting":
                    self.ready(model)
                elif phase == "stopping":
                    self.stopped(model, server)
                elif phase == "away":
                    self.find(server)
            if self.granted:
                self.finish(min(self.granted))
            elif not self.waiting and set(self.phases.values()) <= {"ready"}:
                return
            self.wait(0.5)
        raise AssertionError(f"no end in sight: {self.waiting} {self.phases}")

    # What is

    def server(self, model: ModelTerms, phase: str) -> int:
        """Return the model's server, which must be in that phase."""
        (found,) = [
            server
            for server, its in self.phases.items()
            if its == phase and self.model_of[server] == model.model_id
        ]
        return found

    def servers(self, model: ModelTerms) -> dict[int, str]:
        """Return the phases of the model's servers, by number."""
        return {
            server: phase
            for server, phase in self.phases.items()
            if self.model_of[server] == model.model_id
        }

    def is_(self, model: ModelTerms) -> str | None:
        """Return the phase of the model's server, the oldest of several."""
        return next(iter(self.servers(model).values()), None)

    def in_flight(self, server: int) -> int:
        """Return how many requests a server has."""
        return sum(at == server for at in self.granted.values())

    def on(self, runner: str) -> list[str]:
        """Return the phases of the servers on a runner."""
        return [phase for server, phase in self.phases.items() if self.runner_of[server] == runner]

    # The books

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Start(server=server, model_id=model, runner=runner):
                    self._started(server, model, runner)
                case Await(server=server):
                    assert self.phases[server] == "ready"
                    self.phases[server] = "away"
                case Stop(server=server, model_id=model, cut=cut):
                    assert self.model_of[server] == model
                    assert self.phases[server] != "stopping", "stopped twice"
                    assert (cut is not None) == (self.in_flight(server) > 0)
                    if self.phases[server] == "away":
                        # What it had in flight has ended with the line.
                        self.lost.add(server)
                    else:
                        assert self.may_cut or not cut, "evicted with work in flight"
                    self.phases[server] = "stopping"
                    self.stops.append(model)
                    if cut:
                        self.cut.append(model)
                case Grant(ticket=ticket, server=server):
                    assert self.phases[server] == "ready"
                    assert self.waiting.pop(ticket) == self.model_of[server]
                    if ticket in self._loads:
                        self.ended.add(ticket)
                        continue
                    self.granted[ticket] = server
                    for limit in (self.models[self.model_of[server]].limit, self._slots[server]):
                        assert limit is None or self.in_flight(server) <= limit, "over its slots"
                case Reject(ticket=ticket, error=error):
                    del self.waiting[ticket]
                    assert ticket not in self.ended, "ended twice"
                    self.ended.add(ticket)
                    self.errors[ticket] = error
        # As the driver does, after each thing it has carried out.
        self.scheduler.next_deadline()

    def _started(self, server: int, model: int, runner: str | None) -> None:
        assert server not in self.model_of, "a number was used again"
        others = {
            other: phase
            for other, phase in self.servers(self.models[model]).items()
            if phase != "away" and other not in self.lost
        }
        assert len(others) < self.models[model].replicas, "it has as many as it may have"
        away = [each for each, its in self.servers(self.models[model]).items() if its == "away"]
        assert runner not in {self.runner_of[each] for each in away}, "its first may run there"
        if others:
            self._check_further(model, others)
        self.phases[server] = "starting"
        self.model_of[server] = model
        self.runner_of[server] = runner
        self.starts.append(model)
        assert self._places is None or len(self.phases) <= self._places, "too many at once"
        models = {self.model_of[each] for each in self.phases}
        assert self._models_at_once is None or len(models) <= self._models_at_once
        for device, budget in (self._budgets or {}).items():
            there = [
                self.models[self.model_of[each]].at(self.runner_of[each]) for each in self.phases
            ]
            assert sum(each.memory.get(device, 0) for each in there if each) <= budget, (
                "over the budget"
            )

    def _check_further(self, model: int, others: Mapping[int, str]) -> None:
        """A further server: its model needs it, and nobody else gives or waits for a place."""
        assert "starting" not in others.values(), "two start at once"
        assert any(phase == "ready" for phase in others.values())
        served = {self.model_of[server] for server, phase in self.phases.items() if phase != "away"}
        assert model in self.waiting.values(), "nobody waits for it"
        assert all(each in served for each in self.waiting.values()), "another model goes first"

    def _drop_leases(self, server: int) -> None:
        for ticket in [ticket for ticket, at in self.granted.items() if at == server]:
            del self.granted[ticket]
            self.ended.add(ticket)
            self._do(self.scheduler.request_finished(ticket, self.now))


def unreachable(runner: str | None) -> NodeUnreachable:
    """Return why there is no way to the machine of a runner."""
    return NodeUnreachable(str(runner), "connect", "no answer", "is it on?")


MODELS = [
    terms(1, "a", memory={"gpu": 4, "ram": 1}, limit=2, size_bytes=10**9),
    terms(2, "b", memory={"gpu": 3}, limit=1, ttl_s=5),
    terms(3, "c", memory={"gpu": 5, "ram": 2}, priority=1),
    terms(4, "d", memory={"ram": 4}, limit=2, ttl_s=2),
]
#: The same, with several servers each; all but the third may become full.
REPLICATED: Sequence[ModelTerms] = [
    attrs.evolve(model, replicas=replicas)
    for model, replicas in zip(MODELS, (2, 3, 2, 2), strict=True)
]
#: Some of them on two machines, and one on a single other one.
SPREAD: Sequence[ModelTerms] = [
    spread(REPLICATED[0], "box", "attic"),
    spread(MODELS[1], "attic", "box"),
    spread(REPLICATED[2], "box", "attic"),
    spread(MODELS[3], "box"),
]
BUDGETS = {"gpu": 8, "ram": 5, "box/gpu": 8, "box/ram": 5, "attic/gpu": 5, "attic/ram": 5}
DESKS: dict[str, Any] = {
    "exclusive": lambda **policy: Desk(ExclusivePlanner(), places=1, **policy),
    "count": lambda **policy: Desk(CountPlanner(2), places=2, **policy),
    "memory": lambda **policy: Desk(MemoryPlanner(BUDGETS), budgets=BUDGETS, **policy),
    "capped": lambda **policy: Desk(
        CappedPlanner(MemoryPlanner(BUDGETS), 2), budgets=BUDGETS, places=2, **policy
    ),
    "groups": lambda **policy: Desk(
        GroupsPlanner(
            [
                Group(name="g", members=("a", "b"), exclusive=False),
                Group(name="p", members=("d",), exclusive=False, persistent=True),
            ]
        ),
        models=3,
        **policy,
    ),
    "matrix": lambda **policy: Desk(
        MatrixPlanner([("a", "b"), ("b", "c", "d")], costs={"b": 3}), models=3, **policy
    ),
}
