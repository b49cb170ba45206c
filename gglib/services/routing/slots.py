"""The servers of one router: each has a task that owns it, from its start to its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import anyio
import attrs
from anyio.abc import TaskGroup

from gglib.domain.model import Model
from gglib.domain.ownership import ServerRecord
from gglib.errors import GglibError, NodeUnreachable, NotRunning, StartFailed
from gglib.ports.clock import Clock
from gglib.services.memory_ledger import MemoryLedger
from gglib.services.routing.state import Closing
from gglib.services.serving import RunningServer, ServingService

__all__ = ["GoneCallback", "Slot", "Slots"]

#: Is told a server, and why it is ended in the midst of what it does; ``None``: it is not.
GoneCallback = Callable[[RunningServer, Closing | None], None]
#: How often it is looked whether there is a way again to a server.
_LOOK_AGAIN_S = 0.5
#: How long, at last, it is waited after an attempt to end one that failed.
_STOP_AGAIN_MAX_S = 10.0


@attrs.define(eq=False)
class Slot:
    """What is held for one resident: its server, and the scope of its start."""

    number: int
    model: Model
    runner: str | None
    context_size: int | None
    """What its terms say."""
    server: RunningServer | None = None
    #: Only the router calls off what it holds: whoever cancels the router has it closed, and
    #: that waits for every server's end.
    scope: anyio.CancelScope = attrs.Factory(partial(anyio.CancelScope, shield=True))
    stop_asked: bool = False
    spares_by_hand: bool = False
    """Whether it is only let go if it was started by hand."""
    search: anyio.CancelScope = attrs.Factory(anyio.CancelScope)
    """Of the search for a way to it."""
    announced: bool = False
    requests: int = 0
    """How many it was given; known when it has ended."""
    reason: str = "died"
    """Why it has ended."""
    ended: anyio.Event = attrs.Factory(anyio.Event)


@attrs.define(eq=False)
class _LateStop:
    """Of a server whose machine was away when it was to end, or when its start had failed."""

    record: ServerRecord
    scope: anyio.CancelScope = attrs.Factory(anyio.CancelScope)
    tried: anyio.Event = attrs.Factory(anyio.Event)
    """The next attempt is over."""

    def tell(self) -> None:
        """Have it known that an attempt is over."""
        tried, self.tried = self.tried, anyio.Event()
        tried.set()


class Slots:
    """Starts servers, watches them, and ends them when they are asked to go."""

    def __init__(
        self,
        serving: ServingService,
        *,
        clock: Clock,
        task_group: TaskGroup,
        ledger: MemoryLedger | None,
        on_ready: Callable[[Slot], None],
        on_back: Callable[[Slot], None],
        on_end: Callable[[Slot, GglibError | None], None],
        on_forgotten: Callable[[Slot, RunningServer], Awaitable[None]],
    ) -> None:
        """``on_ready``: its server answers. ``on_end``: it is gone, or its start failed, and why.

        ``on_back``: there is a way to it again. ``on_forgotten``: of one that was ready, once
        all that it leaves has been seen to.
        """
        self.present: dict[int, Slot] = {}
        """Those that are not gone, by the scheduler's number."""
        self.closing = False
        """Whether all go for good: then those that were started by hand are left running."""
        self._serving = serving
        self._clock = clock
        self._on_back = on_back
        self._tasks = task_group
        self._ledger = ledger
        self._on_ready = on_ready
        self._on_end = on_end
        self._on_forgotten = on_forgotten
        self._gone_callbacks: list[GoneCallback] = []
        self._late_stops: set[_LateStop] = set()

    def on_server_gone(self, callback: GoneCallback) -> None:
        """See ``Router.on_server_gone``."""
        self._gone_callbacks.append(callback)

    def of(self, model: Model) -> list[Slot]:
        """Return those of a model."""
        return [slot for slot in self.present.values() if slot.model.id == model.id]

    def holding(self, server: RunningServer) -> Slot | None:
        """Return the one that holds ``server``, if it is not gone."""
        return next((slot for slot in self.present.values() if slot.server is server), None)

    def server(self, number: int) -> RunningServer:
        """Return the server of one that is ready."""
        server = self.present[number].server
        assert server is not None
        return server

    def start(
        self, number: int, model: Model, runner: str | None, context_size: int | None
    ) -> None:
        """Begin to start a server on a runner."""
        slot = self.present[number] = Slot(number, model, runner, context_size)
        self._tasks.start_soon(self._run, slot)

    def take_over(self, number: int, server: RunningServer, context_size: int | None) -> None:
        """Own a server that runs already."""
        runner = server.record.runner
        slot = self.present[number] = Slot(number, server.model, runner, context_size, server)
        self._tasks.start_soon(self._watch, slot)

    def await_way(self, number: int) -> None:
        """Look for a way to a server until there is one, or it ends."""
        slot = self.present[number]
        slot.search = anyio.CancelScope()
        self._tasks.start_soon(self._search, slot, slot.search)

    def stop(self, number: int, cut: Closing | None, *, spares_by_hand: bool = False) -> None:
        """Ask one to go; ``cut``: in the midst of what it does, for that reason.

        ``spares_by_hand``: if it was started by hand it runs on, and is forgotten here.
        """
        slot = self.present[number]
        slot.stop_asked = True
        slot.spares_by_hand = spares_by_hand
        slot.search.cancel()
        if cut is not None:
            self._announce_gone(slot, cut)
        slot.scope.cancel()

    async def _run(self, slot: Slot) -> None:
        """Own one server, from its start to its end: this task is the only one that ends it."""
        error: GglibError | None = None
        with slot.scope:
            try:
                await self._room_on(slot.runner)
                slot.server = await self._serving.start(
                    slot.model, runner=slot.runner, context_size=slot.context_size
                )
            except GglibError as failure:
                error = failure
            except Exception as failure:  # an adapter's bug must not take the gateway down
                error = StartFailed(
                    slot.model.name, None, (), f"{type(failure).__name__}: {failure}"
                )
            else:
                self._on_ready(slot)
                await self._observe(slot.server)
                await self.wait_gone(slot.server)
        await self._end(slot, error)

    async def _watch(self, slot: Slot) -> None:
        """Own a server that was taken over, to its end."""
        assert slot.server is not None
        with slot.scope:
            await self.wait_gone(slot.server)
        await self._end(slot, None)

    async def wait_gone(self, server: RunningServer) -> None:
        """Return when a server has ended, or nothing can tell of it any more."""
        # A stranger's runner that cannot tell of its server any more cannot look after it.
        with suppress(Exception):
            await self._serving.wait_gone(server)

    async def way_to(self, server: RunningServer) -> NodeUnreachable | None:
        """Return why there is no way to a server now, if so."""
        return await self._serving.way_to(server)

    async def _search(self, slot: Slot, scope: anyio.CancelScope) -> None:
        assert slot.server is not None
        with scope:
            while not await self._is_found(slot.server):
                await self._clock.sleep(_LOOK_AGAIN_S)
            self._on_back(slot)

    async def _is_found(self, server: RunningServer) -> bool:
        """Whether there is a way to a server, which lives. Its death is told by its own task."""
        try:
            if await self.way_to(server) is not None:
                return False
            return not (await self._serving.health(server)).is_out_of_reach
        except NotRunning:
            return False
        except Exception:  # a stranger's runner that cannot tell has nothing to say of it
            return True

    def give_up(self) -> None:
        """Wait for no machine that is away: its servers keep their rows, and are found by them."""
        for late in self._late_stops:
            late.scope.cancel()

    async def _room_on(self, runner: str | None) -> None:
        """Return when those have ended there that were to end before, if there is a way to them.

        They have no place any more, but their memory, until then.
        """
        pending = [
            (late.record, late.tried) for late in self._late_stops if late.record.runner == runner
        ]
        for record, tried in pending:
            try:
                await self._serving.is_running(record)
            except Exception:  # its machine is away, or a stranger's runner cannot tell
                return
            await tried.wait()

    def _begin_stop_later(self, record: ServerRecord) -> None:
        if not self.closing:
            late = _LateStop(record)
            self._late_stops.add(late)
            self._tasks.start_soon(self._stop_later, late)

    async def _stop_later(self, late: _LateStop) -> None:
        """End a server that could not be ended, when there is a way to its machine again."""
        pause_s = _LOOK_AGAIN_S
        try:
            # One that survives keeps its row; whatever a stranger's runner raises, others live.
            with late.scope, suppress(Exception):
                while True:
                    await self._clock.sleep(pause_s)
                    # Each attempt to end it is put on record, and told: none without a way. A
                    # way of its own would have to be closed again, if it has ended by then.
                    try:
                        await self._serving.is_running(late.record)
                    except NodeUnreachable:
                        pause_s = _LOOK_AGAIN_S
                        continue
                    try:
                        await self._serving.stop_record(late.record)
                        break
                    except NodeUnreachable:
                        pause_s = min(2 * pause_s, _STOP_AGAIN_MAX_S)
                        late.tell()
        finally:
            self._late_stops.discard(late)
            late.tell()

    async def _observe(self, server: RunningServer) -> None:
        if self._ledger is not None:
            with suppress(Exception):  # a stranger's process table may raise anything
                await self._ledger.observe(server)

    async def _end(self, slot: Slot, error: GglibError | None) -> None:
        slot.search.cancel()
        self._announce_gone(slot)
        server = slot.server
        if server is not None:
            with anyio.CancelScope(shield=True):
                if slot.stop_asked:
                    await self._observe(server)
                # One that survives SIGKILL keeps its row in the registry, and doctor shows it.
                # Whatever a stranger's runner raises, the others are seen to.
                with suppress(Exception):
                    try:
                        if self.closing or slot.spares_by_hand:
                            await self._serving.let_go(server)
                        else:
                            await self._serving.stop(server)
                    except NodeUnreachable:
                        self._begin_stop_later(server.record)
        for record in self._serving.take_left():
            self._begin_stop_later(record)
        slot.ended.set()
        self.note_end(slot, error)
        if server is None:
            return
        if self._ledger is not None:
            with anyio.CancelScope(shield=True), suppress(Exception):
                # Where it cannot be written, or by a stranger's catalog, estimates know less.
                await self._ledger.remember(server, slot.requests)
        await self._on_forgotten(slot, server)

    def note_end(self, slot: Slot, error: GglibError | None = None) -> None:
        """Tell that one is gone: once, even if that was seen before its own task has."""
        if slot.number in self.present:
            self._on_end(slot, error)

    def _announce_gone(self, slot: Slot, why: Closing | None = None) -> None:
        if slot.server is not None and not slot.announced:
            slot.announced = True
            for callback in self._gone_callbacks:
                callback(slot.server, why)
