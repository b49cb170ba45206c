"""The servers in memory: warmed up, kept healthy, measured, and told of when they go.

Which of them are there is decided in ``gglib.services.routing`` alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress

import anyio

from gglib.domain.events import ServerEvicted, ServerUnhealthy, WarmUpFailed
from gglib.errors import GglibError, NotRunning, ShuttingDown
from gglib.ports.clock import Clock
from gglib.ports.event_sink import EventSink
from gglib.services.eviction_callbacks import EvictionCallback, EvictionCallbacks
from gglib.services.memory_ledger import MemoryLedger
from gglib.services.models import ModelService
from gglib.services.routing.planners import Planner
from gglib.services.routing.planning import Planning, Size, planner_for
from gglib.services.routing.router import Eviction, ResidentView, Router
from gglib.services.routing.state import ResidentPhase, Tally
from gglib.services.serving import RunningServer, ServingService

__all__ = ["EvictionCallback", "Pool"]

#: So many failed checks in a row, and a server is ended.
STRIKES = 3
#: How often memory is looked at when health is not.
_LOOK_INTERVAL_S = 10.0
#: How long one health check may take that has no limit of its own.
_CHECK_TIMEOUT_S = 10.0


class Pool:
    """A view on a router's residents, and their upkeep."""

    def __init__(
        self,
        router: Router,
        *,
        serving: ServingService,
        ledger: MemoryLedger,
        clock: Clock,
        events: EventSink,
        health_check_interval_s: float | None,
    ) -> None:
        self._router = router
        self._serving = serving
        self._ledger = ledger
        self._clock = clock
        self._events = events
        self._health_check_interval_s = health_check_interval_s
        self._pauses: set[anyio.CancelScope] = set()
        """The times between two rounds that run now."""
        self._strikes: dict[str, int] = {}
        """Failed checks in a row, by server id."""
        self._callbacks = EvictionCallbacks(clock=clock, events=events)
        router.on_evicted(self._evicted)

    @property
    def residents(self) -> Sequence[ResidentView]:
        """What is in memory, on its way there, or on its way out; the oldest first."""
        return self._router.residents()

    @property
    def tally(self) -> Tally:
        """What has happened so far, counted."""
        return self._router.tally

    @property
    def budgets(self) -> dict[str, int]:
        """What models may need together, in bytes by device."""
        return dict(self._ledger.budgets)

    def strikes(self, server: RunningServer) -> int:
        """Return how many health checks in a row the server has failed."""
        return self._strikes.get(server.server_id, 0)

    def on_evicted(self, callback: EvictionCallback) -> None:
        """Have ``callback(model, device, reason)`` called when a server that was ready is gone.

        By then it is stopped. What it returns is awaited, if it can be, for half a minute at
        most. What it raises becomes an event, and harms nobody.
        """
        self._callbacks.add(callback)

    async def warm_up(self, names: Iterable[str], models: ModelService, *, count: int) -> None:
        """Load the models of these names, one after the other; without any, the most used.

        ``count``: how many of those. One that fails does not keep the others from being loaded.
        """
        names = tuple(names)
        if not names and count:
            known: dict[int, str] = {}
            with suppress(GglibError):  # whoever needs the catalog will tell
                known = {model.id: model.name for model in await models.list()}
            used = [known[each] for each in self._ledger.most_used() if each in known]
            names = tuple(used[:count])
        for name in names:
            try:
                await self._router.load((await models.resolve(name)).model)
            except ShuttingDown:
                return
            except GglibError as error:
                now = self._clock.now()
                self._events.emit(WarmUpFailed(at=now, model_name=name, reason=str(error)))

    def planner(self, planning: Planning, size: Size, limits: Mapping[str, int]) -> Planner:
        """Return the planner that is asked for, by this pool's budgets.

        Raises:
            ConfigurationError: ``limits`` has a budget for a device that is not here.
            InvalidValue: the planner is not told what it needs, or wrongly.
        """
        self._ledger.check_limits(limits)
        return planner_for(planning, size, self._ledger.budgets)

    async def change(
        self, *, health_check_interval_s: float | None, limits: Mapping[str, int]
    ) -> None:
        """Check health that often, and heed these budgets, from now on."""
        self._health_check_interval_s = health_check_interval_s
        for pause in self._pauses:
            pause.cancel()
        self._ledger.set_limits(limits)
        await self.measure()
        await self._router.reconsider()

    async def keep(self) -> None:
        """Look after the servers, for ever."""
        async with anyio.create_task_group() as rounds:
            # Apart: a driver that hangs keeps nobody from seeing that a server does.
            rounds.start_soon(self._every_round, self._observe_all)
            rounds.start_soon(self._every_round, self._check_all)

    async def _every_round(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            with anyio.CancelScope() as pause:
                self._pauses.add(pause)
                await self._clock.sleep(self._health_check_interval_s or _LOOK_INTERVAL_S)
            self._pauses.discard(pause)
            if not pause.cancelled_caught:
                await work()

    def _ready(self) -> list[tuple[RunningServer, bool]]:
        """Return the ready servers, and whether each has something in flight."""
        return [
            (view.server, view.in_flight > 0)
            for view in self._router.residents()
            if view.phase is ResidentPhase.READY and view.server is not None
        ]

    async def _check_all(self) -> None:
        if self._health_check_interval_s is None:
            return
        ready = self._ready()
        present = {server.server_id for server, _ in ready}
        self._strikes = {key: value for key, value in self._strikes.items() if key in present}
        async with anyio.create_task_group() as checks:
            for server, busy in ready:
                checks.start_soon(self._check, server, busy)

    async def _observe_all(self) -> None:
        async with anyio.create_task_group() as looks:
            for server, _ in self._ready():
                looks.start_soon(self._observe, server)
        await self.measure()

    async def _check(self, server: RunningServer, busy: bool) -> None:
        """Ask a server how it is; who does not answer three times is ended."""
        try:
            trouble = await self._trouble_of(server)
        except NotRunning:
            # It has died: whoever waits for its end knows.
            return
        if trouble is None:
            self._strikes.pop(server.server_id, None)
            return
        if busy and not self._serving.answers_while_busy(server):
            return
        strikes = self._strikes[server.server_id] = self.strikes(server) + 1
        if strikes < STRIKES:
            return
        del self._strikes[server.server_id]
        self._events.emit(
            ServerUnhealthy(
                at=self._clock.now(),
                server_id=server.server_id,
                model_name=server.model.name,
                reason=trouble,
            )
        )
        self._router.recycle(server)

    async def _trouble_of(self, server: RunningServer) -> str | None:
        """Return what is wrong with a server, in words; ``None`` = nothing."""
        trouble: str | None = f"no answer in {_CHECK_TIMEOUT_S:g} s"
        gone: NotRunning | None = None
        away = False

        async with anyio.create_task_group() as racers:

            async def ask() -> None:
                nonlocal trouble, gone, away
                try:
                    health = await self._serving.health(server)
                except NotRunning as error:
                    gone = error
                except Exception as error:  # a stranger's runner: its bug is no good answer
                    trouble = f"{type(error).__name__}: {error}"
                else:
                    trouble = None if health.healthy else health.message or "it is unhealthy"
                    away = health.is_out_of_reach
                racers.cancel_scope.cancel()

            racers.start_soon(ask)
            await self._clock.sleep(_CHECK_TIMEOUT_S)
            racers.cancel_scope.cancel()
        if gone is not None:
            raise gone
        if away:
            # It may be well, and is found again when its machine returns.
            self._router.doubt(server)
        return None if away else trouble

    async def _observe(self, server: RunningServer) -> None:
        # Neither what a stranger's process table raises nor a projector that is gone harms
        # the servers: what was known of the model holds.
        with suppress(Exception):
            if await self._ledger.observe(server):
                await self._router.learn(server.model)

    async def measure(self, *, afresh: bool = False) -> None:
        """Set the budgets anew, if nothing starts or stops: then it is known who has what.

        ``afresh``: servers were taken over that had their memory before the budgets were made.
        """
        servers = self._steady_servers()
        if servers is None:
            return
        before = self.budgets
        # Where the catalog, the registry or a stranger's process table cannot be read, what
        # was measured last holds.
        with suppress(Exception):
            await self._ledger.measure(
                servers, holds=lambda: self._steady_servers() == servers, afresh=afresh
            )
        if self.budgets != before:
            await self._router.reconsider()

    async def make_room_on(self, runner: str) -> None:
        """See ``MemoryLedger.make_room_on``."""
        await self._ledger.make_room_on(runner)

    def _steady_servers(self) -> list[RunningServer] | None:
        """Return all servers; ``None`` if one starts or stops."""
        if not self._router.is_steady:
            return None
        return [view.server for view in self._router.residents() if view.server is not None]

    async def _evicted(self, eviction: Eviction) -> None:
        name = eviction.model.name
        self._events.emit(
            ServerEvicted(
                at=self._clock.now(),
                server_id=eviction.server_id,
                model_name=name,
                device=eviction.device,
                reason=eviction.reason,
            )
        )
        await self._callbacks.tell(name, eviction.device, eviction.reason)
