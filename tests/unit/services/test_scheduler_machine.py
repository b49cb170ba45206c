"""The scheduler by thousands of random schedules, against an abstract model of what must hold."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from support.routing import DESKS, MODELS, REPLICATED, SPREAD, Desk, unreachable

from gglib.services.routing.scheduler import ModelTerms, Resident
from gglib.services.routing.state import Closing

NUMBERS = st.integers(0, len(MODELS) - 1)
SESSIONS = st.sampled_from([None, None, "s", "t"])


def phase(*wanted: str) -> Any:
    """Return a condition: some server is in one of these phases."""
    return lambda self: any(each in wanted for each in self.desk.phases.values())


class Schedules(RuleBasedStateMachine):
    """Random schedules. The desk checks each action; here is what must hold between them."""

    desk: Desk

    @initialize(
        kind=st.sampled_from(sorted(DESKS)),
        max_drain_s=st.sampled_from([None, None, 3.0]),
        queue_limit=st.sampled_from([6, 100]),
        models=st.sampled_from([MODELS, REPLICATED, SPREAD]),
        finish_loads=st.booleans(),
        min_size=st.sampled_from([0, 0, 1]),
    )
    def set_up(
        self,
        kind: str,
        max_drain_s: float | None,
        queue_limit: int,
        models: list[ModelTerms],
        finish_loads: bool,
        min_size: int,
    ) -> None:
        self.models = models
        self.desk = DESKS[kind](
            queue_limit=queue_limit,
            max_wait_s=4.0,
            max_drain_s=max_drain_s,
            finish_loads=finish_loads,
            min_size=min_size,
        )
        self.desk.may_cut = max_drain_s is not None
        self.max_drain_s = max_drain_s
        self.shut = False

    def some(self, data: st.DataObject, wanted: str) -> tuple[ModelTerms, int]:
        servers = [server for server, its in self.desk.phases.items() if its == wanted]
        server = data.draw(st.sampled_from(servers))
        return self.desk.models[self.desk.model_of[server]], server

    @rule(
        number=NUMBERS,
        priority=st.sampled_from([None, None, None, -1, 2]),
        session=SESSIONS,
        many=st.integers(1, 4),
    )
    def arrive(self, number: int, priority: int | None, session: str | None, many: int) -> None:
        for _ in range(many):
            self.desk.arrive(self.models[number], priority=priority, session=session)

    @rule(number=NUMBERS)
    def ask_to_load(self, number: int) -> None:
        self.desk.arrive(self.models[number], loads_only=True)

    @precondition(lambda self: self.desk.waiting or self.desk.granted)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.desk.leave(
            data.draw(st.sampled_from(sorted({**self.desk.waiting, **self.desk.granted})))
        )

    @precondition(lambda self: self.desk.granted)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.desk.finish(data.draw(st.sampled_from(sorted(self.desk.granted))))

    @precondition(phase("starting"))
    @rule(data=st.data(), slots=st.sampled_from([None, 1, 3]))
    def get_ready(self, data: st.DataObject, slots: int | None) -> None:
        self.desk.ready(self.some(data, "starting")[0], slots)

    @precondition(phase("starting"))
    @rule(data=st.data(), out_of_memory=st.booleans())
    def fail(self, data: st.DataObject, out_of_memory: bool) -> None:
        self.desk.fail(self.some(data, "starting")[0], out_of_memory=out_of_memory)

    @precondition(phase("starting"))
    @rule(data=st.data())
    def find_nobody(self, data: st.DataObject) -> None:
        model, server = self.some(data, "starting")
        self.desk.fail(model, unreachable(self.desk.runner_of[server]))

    @precondition(phase("ready"))
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self.desk.lose(self.some(data, "ready")[1])

    @precondition(phase("away"))
    @rule(data=st.data())
    def find_again(self, data: st.DataObject) -> None:
        self.desk.find(self.some(data, "away")[1])

    @precondition(phase("away"))
    @rule(data=st.data())
    def die_out_of_reach(self, data: st.DataObject) -> None:
        self.desk.die(*self.some(data, "away"))

    @precondition(phase("stopping"))
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        self.desk.stopped(*self.some(data, "stopping"))

    @precondition(phase("ready"))
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        self.desk.die(*self.some(data, "ready"))

    @precondition(phase("ready"))
    @rule(data=st.data())
    def sicken(self, data: st.DataObject) -> None:
        self.desk.sicken(*self.some(data, "ready"))

    @rule(seconds=st.sampled_from([0.1, 0.9, 2.1, 4.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.desk.wait(seconds)

    @rule(number=NUMBERS)
    def unload(self, number: int) -> None:
        self.desk.unload(self.models[number], cut=self.desk.may_cut)
        self.desk.may_cut = self.max_drain_s is not None

    @rule(number=NUMBERS)
    def drain(self, number: int) -> None:
        self.desk.drain(self.models[number])

    @rule(number=NUMBERS, anew=st.booleans(), limit=st.sampled_from([None, 1, 2]))
    def change(self, number: int, anew: bool, limit: int | None) -> None:
        changed = attrs.evolve(self.models[number], limit=limit)
        self.models = [*self.models[:number], changed, *self.models[number + 1 :]]
        self.desk.change(changed, anew=anew)

    @rule(number=NUMBERS)
    def retire(self, number: int) -> None:
        self.desk.retire(self.models[number])

    @rule(number=st.integers(0, 1), pinned=st.booleans())
    def pin(self, number: int, pinned: bool) -> None:
        self.desk.pin(self.models[number], pinned)

    @rule(number=NUMBERS, ttl_s=st.sampled_from([None, 0.0, 1.0, 20.0]))
    def keep(self, number: int, ttl_s: float | None) -> None:
        self.desk.keep(self.models[number], ttl_s)

    @invariant()
    def books_agree(self) -> None:
        """What the scheduler thinks is in memory and in flight is so."""
        residents = self.desk.scheduler.residents
        assert {each.server: str(each.phase) for each in residents} == self.desk.phases
        for each in residents:
            assert each.in_flight == self.desk.in_flight(each.server)
            assert each.in_flight == sum(each.levels.values())
        assert {each.ticket for each in self.desk.scheduler.queue()} == set(self.desk.waiting)
        for model in self.models:
            state = self.desk.scheduler.state(model.model_id)
            phases = list(self.desk.servers(model).values())
            assert state is None or state.away == phases.count("away")

    @invariant()
    def further_servers_cost_nobody_a_place(self) -> None:
        """No model has more than it may have; who goes, goes for a model that has none."""
        for model in self.models:
            servers = self.desk.servers(model)
            phases = [its for each, its in servers.items() if each not in self.desk.lost]
            state = self.desk.scheduler.state(model.model_id)
            residents = () if state is None else state.residents
            staying = [each for each in residents if not (each.is_away or each.is_leaving)]
            assert len(staying) <= model.replicas
            if not model.elsewhere:
                # Nor any that serves on until it goes: none was started for one out of reach.
                there = sum(its not in ("away", "stopping") for its in phases)
                assert there <= model.replicas
            if "away" not in phases:
                # Each that returns goes at once, or one that was started in its place does.
                assert len(phases) <= model.replicas * (1 + bool(model.elsewhere))
        for each in self.desk.scheduler.residents:
            if each.closing is Closing.SWAP and self.desk.phases[each.server] == "ready":
                assert any(self.is_for(other, each) for other in self.models)

    @invariant()
    def retired_models_are_on_their_way_out(self) -> None:
        """No server of one stays, whenever it got ready."""
        for each in self.desk.scheduler.residents:
            assert not (each.model.retired and each.takes_requests)

    def is_for(self, model: ModelTerms, victim: Resident) -> bool:
        """Whether the place of ``victim`` is for ``model``."""
        state = self.desk.scheduler.state(model.model_id)
        if state is None or state.swap is not victim.swap:
            return False
        # One whose server goes that was away is wanted again as soon as that is gone.
        return state.is_wanted or any(each.server in self.desk.lost for each in state.residents)

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """Who waits, waits for something that will come."""
        if self.desk.waiting:
            busy = {"starting", "stopping"} & set(self.desk.phases.values())
            due = self.desk.scheduler.next_deadline()
            assert busy or self.desk.granted or due is not None
        for each in self.desk.scheduler.residents:
            due_at = each.claim_due_at
            # Servers that go for one swap go together, when the work of all has ended.
            yields = due_at is not None and due_at <= self.desk.now and self.desk.granted
            if each.takes_requests and not each.in_flight and not yields:
                assert not each.model.line, "it has nothing to do, and somebody waits for it"

    def teardown(self) -> None:
        """Whatever happened: everybody gets an end, and a shutdown ends everything."""
        if not hasattr(self, "desk"):
            return
        for model in self.models[:2]:
            self.desk.pin(model, False)
        self.desk.settle()
        assert not self.desk.waiting
        self.desk.shut_down()
        self.desk.settle()
        assert self.desk.scheduler.is_idle
        self.desk.arrive(self.models[0])
        assert not self.desk.waiting
        assert not self.desk.granted


Schedules.TestCase.settings = settings(max_examples=250, stateful_step_count=40, deadline=None)
TestRandomSchedules = Schedules.TestCase


class LongSchedules(Schedules):
    """As above, longer."""


LongSchedules.TestCase.settings = settings(
    max_examples=5_000, stateful_step_count=100, deadline=None
)
TestManyRandomSchedules = pytest.mark.soak(LongSchedules.TestCase)
