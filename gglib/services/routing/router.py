"""The scheduler's driver: its actions become tasks, its grants become leases."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count

import anyio
import attrs
from anyio.abc import TaskGroup

from gglib.domain.model import Model
from gglib.errors import GglibError, NodeUnreachable
from gglib.ports.clock import Clock
from gglib.services.intent import is_served_alike
from gglib.services.memory_ledger import MemoryLedger
from gglib.services.routing.explain import Explanation, explain
from gglib.services.routing.out_of_memory import ran_out_of_memory
from gglib.services.routing.planners import CountPlanner, Planner
from gglib.services.routing.positions import Positions
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
from gglib.services.routing.slots import GoneCallback, Slot, Slots
from gglib.services.routing.spots import Spots
from gglib.services.routing.state import Tally
from gglib.services.routing.terms import Spot, terms_of
from gglib.services.routing.views import Eviction, QueuedView, ResidentView, main_device
from gglib.services.serving import RunningServer, ServingService

__all__ = ["Eviction", "Lease", "QueuedView", "ResidentView", "Router", "open_router", "terms_of"]

#: How long an engine that dropped a connection may take to be seen dead.
_DEATH_NOTICE_S = 0.25
#: How long a way that was cut may take to be there again, where another server can serve.
_RETURN_S = 1.0


class Lease:
    """The right to send one request to a ready server. End it with ``release``."""

    __slots__ = ("_router", "_ticket", "server")

    def __init__(self, router: Router, ticket: int, server: RunningServer) -> None:
        self._router: Router | None = router
        self._ticket = ticket
        self.server = server

    def release(self) -> None:
        """End the lease; a second call does nothing."""
        router, self._router = self._router, None
        if router is not None:
            router.finish(self._ticket)


@attrs.define(eq=False)
class _Waiter:
    event: anyio.Event
    outcome: RunningServer | GglibError | None = None


class Router:
    """Turns requests for models into leases on ready servers.

    Runs in one event loop. ``try_lease`` and ``release`` never wait, so that the path of a
    request to a ready server awaits nothing but the network.
    """

    def __init__(
        self,
        serving: ServingService,
        *,
        clock: Clock,
        task_group: TaskGroup,
        planner: Planner,
        policy: Policy,
        ttl_s: float | None = None,
        ledger: MemoryLedger | None = None,
    ) -> None:
        self._serving = serving
        self._tasks = task_group
        self._ledger = ledger
        self._clock = clock
        self._ttl_s = ttl_s
        self._scheduler = Scheduler(planner, policy)
        self._tickets = count(1)
        self._waiters: dict[int, _Waiter] = {}
        self._known: dict[int, tuple[Model, ModelTerms]] = {}
        self._replaced: dict[int, tuple[Model, Model]] = {}
        """By id, a model as requests may still hold it that were resolved before a change."""
        self._slots = Slots(
            serving,
            clock=clock,
            task_group=task_group,
            ledger=ledger,
            on_ready=self._server_ready,
            on_back=self._server_back,
            on_end=self._server_ended,
            on_forgotten=self._server_forgotten,
        )
        self._spots = Spots(serving, ledger, self._slots, clock)
        self._idle = anyio.Event()
        self._alarm_at = math.inf
        self._alarm = anyio.CancelScope()
        self._stale: set[int] = set()
        """Models whose terms are to be made anew when they are next needed."""
        self._evicted_callbacks: list[Callable[[Eviction], Awaitable[None]]] = []
        self._positions = Positions(self._scheduler, clock)

    # Leases

    def try_lease(self, model: Model, *, session: str | None = None) -> Lease | None:
        """Return a lease if a server of the model is free and nobody is ahead; never waits."""
        known = self._known.get(model.id)
        if known is None or known[0] is not model:
            return None
        ticket = next(self._tickets)
        now = self._clock.monotonic()
        number = self._scheduler.try_grant(ticket, known[1], now, session=session)
        if number is None:
            return None
        return Lease(self, ticket, self._slots.server(number))

    async def acquire(
        self,
        model: Model,
        *,
        priority: int | None = None,
        session: str | None = None,
        on_position: Callable[[int], None] | None = None,
    ) -> Lease:
        """Return a lease, as soon as it is this request's turn; starts the model if need be.

        ``priority``: instead of the model's. ``session``: what the request belongs to; of a
        model's servers it goes to the one that this used last, if that has room, else to the
        least busy one. ``on_position`` is told how many stand before it,
        when that changes, at most four times a second; it must not raise. Cancelling forgets
        the request at once.

        Raises:
            QueueFull, ShuttingDown, Unloaded: it was not let in, or thrown out.
            BreakerOpen: the model's last start failed a moment ago.
            DoesNotFit, NoRoom: there is no place for the model, whoever goes.
            NotStarted: none of its runners could start it; says why not.
            GglibError: the start that it waited for failed, and why.
        """
        ticket, server = await self._wait(model, priority, on_position, session=session)
        return Lease(self, ticket, server)

    @asynccontextmanager
    async def lease(self, model: Model) -> AsyncIterator[Lease]:
        """Hold a lease for the block."""
        lease = await self.acquire(model)
        try:
            yield lease
        finally:
            lease.release()

    async def load(self, model: Model) -> RunningServer:
        """Return a server of the model when it is ready; starts one if need be.

        Takes none of the server's slots. A start that failed a moment ago is tried again.

        Raises:
            As ``acquire``, but for ``QueueFull`` and ``BreakerOpen``.
        """
        _, server = await self._wait(model, None, None, loads_only=True)
        return server

    def finish(self, ticket: int) -> None:
        """Count a granted request as done (``Lease.release`` calls this)."""
        if actions := self._scheduler.request_finished(ticket, self._clock.monotonic()):
            self._carry_out(actions)
        elif self._scheduler.deadline < self._alarm_at:
            self._set_alarm()

    async def is_gone(self, server: RunningServer) -> bool:
        """Whether a server that dropped a connection has died; waits a moment to be sure.

        When it has, the next lease is on another one.
        """
        with anyio.move_on_after(_DEATH_NOTICE_S):
            await self._slots.wait_gone(server)
            slot = self._slots.holding(server)
            if slot is not None and not slot.stop_asked:
                self._slots.note_end(slot)
            return True
        return False

    async def way_to(self, server: RunningServer) -> NodeUnreachable | None:
        """Return why there is no way to the server now, if so; waits a moment for one.

        Where its model has another runner, requests go there from then on, until there is one.
        """
        has_others = self._has_others(server)
        away: NodeUnreachable | None = None
        with anyio.move_on_after(_RETURN_S if has_others else math.inf) as patience:
            # A stranger's runner that cannot tell has nothing to say of it.
            with suppress(Exception):
                away = await self._slots.way_to(server)
        if patience.cancelled_caught:
            away = NodeUnreachable(
                server.handle.node, "connect", "the connection was cut", "it is being made again"
            )
        if away is not None and self._spots.unknown(server.model):
            # Those that could not tell what it needs there may be the ones to serve it now.
            with anyio.move_on_after(_RETURN_S):
                await self._learn_quietly(server.model)
        slot = self._slots.holding(server)
        if away is not None and slot is not None:
            now = self._clock.monotonic()
            self._carry_out(self._scheduler.server_away(slot.number, away, now))
        return away

    def doubt(self, server: RunningServer) -> None:
        """Find out, beside, whether there is a way to a server that another can stand for."""
        if self._has_others(server):
            self._tasks.start_soon(self.way_to, server)

    def is_passed_over(self, server: RunningServer) -> bool:
        """Whether requests of the server's model go elsewhere now, since there is no way to it."""
        slot = self._slots.holding(server)
        resident = None if slot is None else self._scheduler.resident(slot.number)
        return resident is None or not resident.takes_requests

    # Residents

    def residents(self) -> list[ResidentView]:
        """Return what is in memory, on its way there, or on its way out; the oldest first."""
        now = self._clock.monotonic()
        views = []
        for resident in self._scheduler.residents:
            slot = self._slots.present[resident.server]
            observed = None
            if self._ledger is not None and slot.server is not None:
                observed = self._ledger.observed_bytes(slot.server)
            expires_at = self._scheduler.expires_at(resident)
            may_idle_s = self._scheduler.may_idle_s(resident)
            views.append(
                ResidentView(
                    model=slot.model,
                    phase=resident.phase,
                    in_flight=resident.in_flight,
                    queued=resident.model.line.count,
                    server=slot.server,
                    runner=slot.runner,
                    pinned=resident.model.pinned,
                    closing=resident.closing,
                    requests=resident.requests,
                    memory=resident.terms.memory,
                    memory_observed_bytes=observed,
                    ttl_s=None if may_idle_s == math.inf else may_idle_s,
                    ttl_left_s=None if expires_at == math.inf else max(0.0, expires_at - now),
                )
            )
        return views

    def queue(self) -> list[QueuedView]:
        """Return who waits, in the order in which they stand."""
        now = self._clock.monotonic()
        return [
            QueuedView(
                position=position,
                model=self._known[waiter.model_id][0],
                priority=waiter.priority,
                waited_s=now - waiter.arrived,
            )
            for position, waiter in enumerate(self._scheduler.queue())
        ]

    def load_of(self, model: Model) -> tuple[float, float] | None:
        """Return for how long a server of the model has been loading, and how long it may take.

        In seconds; ``None``: none is.
        """
        state = self._scheduler.state(model.id)
        starting = None if state is None else state.starting
        if state is None or starting is None:
            return None
        return self._clock.monotonic() - starting.started_at, state.expected_load_s

    def why(self, model: Model) -> Explanation | None:
        """Return the story of a model's place; ``None``: nobody has asked for it yet."""
        state = self._scheduler.state(model.id)
        if state is None:
            return None
        return explain(
            state,
            self._clock.monotonic(),
            runners=self._serving.runners_of(self._known[model.id][0]),
            unplaced=self._spots.unknown(model),
        )

    @property
    def tally(self) -> Tally:
        """What has happened so far, counted. Read only."""
        return self._scheduler.tally

    @property
    def is_steady(self) -> bool:
        """Whether nothing starts or stops."""
        return all(
            slot.server is not None and not slot.stop_asked for slot in self._slots.present.values()
        )

    async def take_over(self, server: RunningServer) -> bool:
        """Make a server that is ready already a resident, as if it had been started here.

        Returns whether it is: not if its model has as many as it may, or the router shuts down.
        """
        terms = await self._terms(server.model)
        size, runner = server.record.config.context_size, server.record.runner
        at = terms.at(runner)
        is_unsaid = not server.model.defaults.server.get("context_size")
        if self._ledger is not None and (at is None or is_unsaid):
            memory = await self._ledger.needs(server.model, size, runner=runner)
            spot = Spot(runner=runner, memory=memory, context_size=size)
            terms = terms.with_spot(spot)
            self._known[server.model.id] = (server.model, terms)
            at = attrs.evolve(terms, runner=runner, memory=memory, context_size=size, elsewhere=())
        now = self._clock.monotonic()
        taken = self._scheduler.take_over(terms, now, spot=at, slots=server.slots_total)
        if taken is None:
            return False
        number, actions = taken
        self._slots.take_over(number, server, None if at is None else at.context_size)
        self._carry_out(actions)
        return True

    def unload(self, model: Model, *, cut: bool = False) -> bool:
        """Let the model's servers go when nothing is in flight (``cut``: at once).

        Returns whether it was resident. Does not wait for its end.
        """
        slots = self._slots.of(model)
        self._carry_out(self._scheduler.unload(model.id, self._clock.monotonic(), cut=cut))
        return bool(slots)

    def drain(self, model: Model) -> bool:
        """Let the model go when all who wait for it now are served. As ``unload`` otherwise."""
        slots = self._slots.of(model)
        self._carry_out(self._scheduler.drain(model.id, self._clock.monotonic()))
        return bool(slots)

    async def set_pinned(self, model: Model, pinned: bool) -> None:
        """Keep the model in memory once it is there, or no longer; until the router ends."""
        terms = await self._terms(model)
        self._carry_out(self._scheduler.set_pinned(terms, pinned, self._clock.monotonic()))

    def set_ttl(self, model: Model, ttl_s: float | None) -> None:
        """Have the model's servers go after idling for so long (``None``: never).

        Until it is said anew, or they are gone: those that come later idle as the model says.
        Without servers, there is nothing to say it of.
        """
        self._carry_out(self._scheduler.set_ttl(model.id, ttl_s, self._clock.monotonic()))

    async def wait_unloaded(self, model: Model) -> None:
        """Return when the servers that the model has now are gone."""
        for slot in self._slots.of(model):
            await slot.ended.wait()

    def recycle(self, server: RunningServer) -> None:
        """End a server that no longer answers; what waits for it gets a new one."""
        slot = self._slots.holding(server)
        if slot is not None:
            now = self._clock.monotonic()
            self._carry_out(self._scheduler.server_unhealthy(slot.number, now))

    async def learn(self, model: Model) -> None:
        """Take note that what the model needs is another than was thought."""
        self._stale.add(model.id)
        # A server's model is as it was when that started: what the user wants may be another.
        known = self._known.get(model.id)
        self._scheduler.learn(await self._terms(model if known is None else known[0]))
        self._carry_out(self._scheduler.reconsider(self._clock.monotonic()))

    async def take_note(self, models: Sequence[Model]) -> None:
        """Take note of what models there are: those whose model has changed, or is gone, go.

        A model that is served otherwise now is started anew when it is wanted; until then its
        servers end what they have. One that was started by hand stays as its starter wanted it.
        """
        now = {model.id: model for model in models}
        for known, _ in list(self._known.values()):
            model = now.get(known.id)
            if model is None:
                self.retire(known)
            elif model == known:
                self._scheduler.set_retired(model.id, False)
            else:
                self.change(model)
                with suppress(GglibError):  # a file beside it is gone: who asks for it is told
                    await self.learn(model)

    async def reconsider(self) -> None:
        """Look anew who can start: there is more memory, or less."""
        self._stale.update(self._known)
        wanted = {slot.model.id for slot in self._slots.present.values()}
        wanted.update(waiter.model_id for waiter in self._scheduler.queue())
        for model_id in wanted:
            with suppress(GglibError):  # a file beside it is gone: who asks for it is told
                self._scheduler.learn(await self._terms(self._known[model_id][0]))
        self._carry_out(self._scheduler.reconsider(self._clock.monotonic()))

    # What a new configuration says

    def set_policy(self, policy: Policy, planner: Planner, ttl_s: float | None) -> None:
        """Play by other rules from now on; as in ``open_router``. Servers that run stay."""
        self._ttl_s = ttl_s
        now = self._clock.monotonic()
        self._carry_out(self._scheduler.set_policy(policy, planner, now))
        for model, _ in list(self._known.values()):
            self.change(model)

    def change(self, model: Model) -> None:
        """Treat a model as it is said now, at once. What it needs is found out by ``reconsider``.

        Servers that will not do any more serve whoever waits now, and go; the next one is as
        the model says. One that was started by hand stays.
        """
        known = self._known.get(model.id)
        if known is None:
            return
        before, terms = known
        if before is not model:
            self._replaced[model.id] = (before, model)
        runners = self._serving.runners_of(model)
        spots = [
            Spot(runner=name, memory=at.memory, context_size=at.context_size)
            for name in runners
            if (at := terms.at(name)) is not None
        ]
        # Of runners that are new to it nothing is known yet.
        spots = spots or [Spot(runner=runners[0], memory=terms.memory)]
        if len(spots) < len(runners):
            self._stale.add(model.id)
        terms = terms_of(model, ttl_s=self._ttl_s, spots=spots)
        self._known[model.id] = (model, terms)
        same_runners = runners == self._serving.runners_of(before)
        afresh = not (same_runners and is_served_alike(before, model))
        now = self._clock.monotonic()
        self._carry_out(self._scheduler.change(terms, now, afresh=afresh))
        self._let_go_unlike(model)

    def retire(self, model: Model) -> None:
        """Let go a model that nobody can ask for any more, once whoever waits is served.

        A server that was started by hand stays.
        """
        self._scheduler.set_retired(model.id, True)
        for slot in self._slots.of(model):
            if slot.server is not None:
                self._let_go_changed(slot)

    def on_server_gone(self, callback: GoneCallback) -> None:
        """Have ``callback(server, why)`` called when a server stops or dies; it must not raise.

        ``why`` is not ``None`` when it is ended in the midst of what it does: as soon as that
        is decided. Otherwise nothing is in flight, or it has died.
        """
        self._slots.on_server_gone(callback)

    def on_evicted(self, callback: Callable[[Eviction], Awaitable[None]]) -> None:
        """Have ``callback(eviction)`` awaited when a server that was ready is gone.

        By then it is stopped and its memory is free. It must not raise. Nobody waits for it but
        the end of the router.
        """
        self._evicted_callbacks.append(callback)

    # Shutdown

    def begin_shutdown(self) -> None:
        """Accept nothing more; whoever waits gets ``ShuttingDown``. What is in flight goes on."""
        self._slots.closing = True
        self._carry_out(self._scheduler.shutdown(self._clock.monotonic()))

    async def close(self) -> None:
        """Stop everything now and return when it is gone."""
        self._slots.closing = True
        self._slots.give_up()
        now = self._clock.monotonic()
        self._carry_out(self._scheduler.shutdown(now, deadline=now))
        while not self._scheduler.is_idle:
            self._idle = anyio.Event()
            await self._idle.wait()

    async def keep_time(self) -> None:
        """Tell the scheduler when something has become due, for ever."""
        while True:
            with anyio.CancelScope() as self._alarm:
                deadline = self._scheduler.next_deadline()
                if deadline is None:
                    self._alarm_at = math.inf
                    await anyio.sleep_forever()
                else:
                    self._alarm_at = deadline
                    await self._clock.sleep(max(0.0, deadline - self._clock.monotonic()))
            now = self._clock.monotonic()
            self._carry_out(self._scheduler.time_passed(now))

    def _has_others(self, server: RunningServer) -> bool:
        """Whether its model has another runner."""
        runners = self._serving.runners_of(server.model)
        return any(name != server.record.runner for name in runners)

    # Waiting

    async def _wait(
        self,
        model: Model,
        priority: int | None,
        on_position: Callable[[int], None] | None,
        *,
        session: str | None = None,
        loads_only: bool = False,
    ) -> tuple[int, RunningServer]:
        terms = await self._terms(model)
        ticket = next(self._tickets)
        waiter = self._waiters[ticket] = _Waiter(anyio.Event())
        self._carry_out(
            self._scheduler.request_arrived(
                ticket,
                terms,
                self._clock.monotonic(),
                priority=priority,
                session=session,
                loads_only=loads_only,
            )
        )
        try:
            if on_position is None:
                await waiter.event.wait()
            else:
                await self._positions.tell_until(waiter.event, ticket, on_position)
        except BaseException:
            if not isinstance(waiter.outcome, GglibError):
                self._carry_out(self._scheduler.request_gone(ticket, self._clock.monotonic()))
            raise
        finally:
            del self._waiters[ticket]
        assert waiter.outcome is not None
        if isinstance(waiter.outcome, GglibError):
            # One failed start is told to many waiters: each raises an error of its own.
            raise self._spots.told(model, waiter.outcome)
        return ticket, waiter.outcome

    async def _terms(self, model: Model) -> ModelTerms:
        model = self._model_now(model)
        known = self._known.get(model.id)
        if known is not None and model.id not in self._stale:
            if self._spots.is_to_ask_again(model):
                self._tasks.start_soon(self._learn_quietly, model)
            if known[0] is model:
                return known[1]
            if known[0] == model:
                self._known[model.id] = (model, known[1])
                return known[1]
        self._stale.discard(model.id)
        try:
            spots = await self._spots.of(model)
        except BaseException:
            self._stale.add(model.id)
            raise
        model = self._model_now(model)
        terms = terms_of(model, ttl_s=self._ttl_s, spots=spots)
        self._known[model.id] = (model, terms)
        self._let_go_unlike(model)
        return terms

    def _model_now(self, model: Model) -> Model:
        """Return the model, or the one that has taken its place since it was resolved."""
        before, after = self._replaced.get(model.id, (None, model))
        return after if model is before else model

    async def _learn_quietly(self, model: Model) -> None:
        with suppress(GglibError):  # none can tell: who asks for it is told
            await self.learn(model)

    def _let_go_unlike(self, model: Model) -> None:
        """Let those of a model's servers go that it would not be given today."""
        runners = self._serving.runners_of(model)
        for slot in self._slots.of(model):
            if slot.runner not in runners or not is_served_alike(slot.model, model):
                self._let_go_changed(slot)

    def _let_go_changed(self, slot: Slot) -> None:
        if slot.server is None or not slot.server.by_hand:
            now = self._clock.monotonic()
            self._carry_out(self._scheduler.model_changed(slot.number, now))

    # Actions

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Grant(ticket=ticket, server=number):
                    self._settle(ticket, self._slots.server(number))
                case Reject(ticket=ticket, error=error):
                    self._settle(ticket, error)
                case Start(server=number, model_id=model_id, runner=runner):
                    model, terms = self._known[model_id]
                    at = terms.at(runner)
                    size = None if at is None else at.context_size
                    self._slots.start(number, model, runner, size)
                case Await(server=number):
                    self._slots.await_way(number)
                case Stop(server=number, cut=cut, spares_by_hand=spares):
                    self._slots.stop(number, cut, spares_by_hand=spares)
        if self._scheduler.is_idle:
            self._idle.set()
        self._set_alarm()

    def _set_alarm(self) -> None:
        deadline = self._scheduler.next_deadline()
        if deadline is not None and deadline < self._alarm_at:
            self._alarm_at = deadline
            self._alarm.cancel()

    def _settle(self, ticket: int, outcome: RunningServer | GglibError) -> None:
        waiter = self._waiters[ticket]
        waiter.outcome = outcome
        waiter.event.set()

    def _server_ready(self, slot: Slot) -> None:
        assert slot.server is not None
        now = self._clock.monotonic()
        slots = slot.server.slots_total
        self._carry_out(self._scheduler.server_ready(slot.number, now, slots=slots))

    def _server_back(self, slot: Slot) -> None:
        self._carry_out(self._scheduler.server_back(slot.number, self._clock.monotonic()))

    def _server_ended(self, slot: Slot, error: GglibError | None) -> None:
        """Tell the scheduler that a server is gone, or its start has failed."""
        resident = self._scheduler.resident(slot.number)
        assert resident is not None
        slot.requests = resident.requests
        now = self._clock.monotonic()
        if slot.stop_asked:
            slot.reason = resident.closing or slot.reason
            actions = self._scheduler.server_stopped(slot.number, now)
        elif error is not None:
            actions = self._scheduler.server_failed(
                slot.number, error, now, out_of_memory=ran_out_of_memory(error)
            )
        else:
            actions = self._scheduler.server_died(slot.number, now)
        del self._slots.present[slot.number]
        # Its place is free, so that the next one may get another.
        self._stale.add(slot.model.id)
        self._carry_out(actions)

    async def _server_forgotten(self, slot: Slot, server: RunningServer) -> None:
        """Tell that a server that was ready is gone: what it took is known now."""
        self._stale.add(server.model.id)
        eviction = Eviction(
            model=server.model,
            device=main_device(self._known[server.model.id][1].memory),
            reason=slot.reason,
            server_id=server.server_id,
        )
        for callback in self._evicted_callbacks:
            await callback(eviction)


@asynccontextmanager
async def open_router(
    serving: ServingService,
    *,
    clock: Clock,
    planner: Planner | None = None,
    policy: Policy | None = None,
    ttl_s: float | None = None,
    ledger: MemoryLedger | None = None,
) -> AsyncIterator[Router]:
    """Run a router for the block; at its end every server it started is stopped.

    ``ledger`` tells what models need; without one it is nothing. Unless a ``planner`` says
    otherwise there is one model in memory at a time. ``ttl_s``: idle time after which a model
    goes that has none of its own; ``None`` = never.
    """
    async with anyio.create_task_group() as tasks:
        router = Router(
            serving,
            clock=clock,
            task_group=tasks,
            planner=planner or CountPlanner(1),
            policy=policy or Policy(),
            ttl_s=ttl_s,
            ledger=ledger,
        )
        alarms = anyio.CancelScope()
        tasks.start_soon(_within, alarms, router.keep_time)
        try:
            yield router
        finally:
            with anyio.CancelScope(shield=True):
                await router.close()
            alarms.cancel()


async def _within(scope: anyio.CancelScope, work: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await work()
