"""Starting and stopping servers so that none is ever lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

import anyio
import attrs

from gglib.domain.handle import ProcessHandle
from gglib.domain.health import ServerHealth
from gglib.domain.model import Model
from gglib.domain.ownership import Owner, OwnerKind, ServerRecord
from gglib.domain.server_props import ServerProps
from gglib.domain.state import ServerState
from gglib.errors import (
    GglibError,
    InvalidValue,
    ModelFileMissing,
    NodeUnreachable,
    NotRunning,
    NotStarted,
)
from gglib.ports.clock import Clock
from gglib.ports.context import EngineSet, RunnerSet
from gglib.ports.event_sink import EventSink
from gglib.ports.process_runner import ProcessRunner
from gglib.ports.server_client import ServerClient
from gglib.ports.server_registry import ServerRegistry
from gglib.services.intent import bounded_prompt_cache, choose_engine, config_for
from gglib.services.server_questions import ServerQuestions
from gglib.services.server_reports import ServerReports
from gglib.services.starting import PortLost, Started, Starter, Wish

__all__ = ["RunningServer", "ServingService"]

#: How often a server that lost the race for its port is started again on another.
_PORT_RETRIES = 3
_NO_OVERRIDES: Mapping[str, Any] = MappingProxyType({})


@attrs.frozen(kw_only=True, eq=False)
class RunningServer:
    """A server that was ready when this was returned. ``load_s``: from the spawn until then."""

    record: ServerRecord
    handle: ProcessHandle
    model: Model
    load_s: float
    slots_total: int | None = None
    """How many requests it works on at once; ``None``: unknown, or any number."""
    context_size: int | None = None
    """The most tokens that one request may have, prompt and answer; ``None``: unknown."""

    @property
    def server_id(self) -> str:
        """Its identity."""
        return self.record.server_id

    @property
    def engine(self) -> str:
        """The name of its engine."""
        return self.record.engine

    @property
    def api_key(self) -> str | None:
        """What it wants as a bearer token; ``None`` = nothing."""
        return self.record.api_key

    @property
    def by_hand(self) -> bool:
        """Whether somebody started it to run on by itself (``gglib start``)."""
        return self.record.owner.kind is OwnerKind.STANDALONE

    @property
    def is_behind_a_line(self) -> bool:
        """Whether the way to it can be cut while it is well: it runs on another machine."""
        return self.handle.base_url.startswith("http+unix:")

    @property
    def base_url(self) -> str:
        """Where to connect."""
        return self.handle.base_url


class ServingService:
    """Starts and stops servers in the name of one owner.

    A row in the registry precedes every spawn and outlasts every process: whatever moment a
    crash chooses, ``gglib.services.ownership.reconcile`` finds what it left.
    """

    def __init__(
        self,
        runners: Mapping[str, ProcessRunner],
        default_runner: str,
        registry: ServerRegistry,
        engines: EngineSet,
        server_client: ServerClient,
        *,
        clock: Clock,
        events: EventSink,
        owner: Owner,
        start_timeout_s: float = 600.0,
        keep_alive: bool = False,
        default_engine: str | None = None,
    ) -> None:
        self._runners = runners if isinstance(runners, RunnerSet) else RunnerSet(runners)
        self._default_runner = default_runner
        self._default_engine = default_engine
        self._registry = registry
        self._engines = engines
        self._clock = clock
        self._left: list[ServerRecord] = []
        self._reports = ServerReports(clock=clock, events=events)
        self._questions = ServerQuestions(server_client, clock=clock, events=events)
        self._starter = Starter(
            registry,
            clock=clock,
            reports=self._reports,
            questions=self._questions,
            owner=owner,
            timeout_s=start_timeout_s,
            keep_alive=keep_alive,
            on_left=self._left.append,
        )
        self._owner = owner
        self._servers: dict[str, RunningServer] = {}
        self._stopping: dict[str, anyio.Event] = {}
        self._settled: Callable[[str], Awaitable[None]] | None = None

    @property
    def servers(self) -> tuple[RunningServer, ...]:
        """Return the servers this service started and has not stopped, oldest first."""
        return tuple(self._servers.values())

    def change(self, *, start_timeout_s: float) -> None:
        """Give every later start that long to become ready."""
        self._starter.timeout_s = start_timeout_s

    def hold_starts(self, settled: Callable[[str], Awaitable[None]]) -> None:
        """Have every later start wait for ``settled(runner)``, the name of where it will be."""
        self._settled = settled

    async def start(
        self,
        model: Model,
        *,
        overrides: Mapping[str, Any] = _NO_OVERRIDES,
        engine: str | None = None,
        context_size: int | None = None,
        runner: str | None = None,
    ) -> RunningServer:
        """Start a server of ``model`` and return when it is ready.

        ``runner``: one of the model's; ``None``: the first that can. ``overrides`` change the
        model's own settings. ``context_size`` is what there is room for, in tokens: it counts
        where nothing says another, if the engine takes one. A failure, or a cancellation at any
        point, leaves no process and no row.

        Raises:
            EngineNotFound, EngineCannot: nothing here can serve it, or serve it so.
            AdapterError: its engine or runner is broken, or there is no such runner.
            InvalidValue: an override is wrong.
            ModelFileMissing: a file of the model is not there.
            PortInUse: the port that was asked for is taken.
            StartFailed: it ended before it was ready; carries its last lines.
            StartTimeout: it was not ready in ``start_timeout_s``, and has been stopped.
            NodeUnreachable: nobody answers where it should run.
            NotStarted: none of its runners could; carries each one's reason.
        """
        errors: list[tuple[str, GglibError]] = []
        names = self.runners_of(model) if runner is None else (runner,)
        for name in names:
            try:
                return await self._start_on(name, model, overrides, engine, context_size)
            except InvalidValue:
                raise
            except GglibError as error:
                errors.append((name, error))
        if len(errors) == 1:
            raise errors[0][1]
        reasons = tuple(f"on {name}: {error}" for name, error in errors)
        raise NotStarted(model.name, reasons)

    def runners_of(self, model: Model) -> tuple[str, ...]:
        """Return the runners that may run the model's servers, in the order of their trial."""
        return model.defaults.runners or (self._default_runner,)

    async def _start_on(
        self,
        runner_name: str,
        model: Model,
        overrides: Mapping[str, Any],
        engine: str | None,
        context_size: int | None,
    ) -> RunningServer:
        runner = self._runners[runner_name]
        if self._settled is not None:
            await self._settled(runner_name)
        # The default is the first that is found on this machine: it says nothing of another.
        chosen = await runner.engine_there(self._engines, engine or model.defaults.engine)
        if chosen is None:
            chosen = await choose_engine(self._engines, model, engine, self._default_engine)
        config = config_for(model, overrides, chosen.name)
        reduced = config.context_size is None and chosen.capabilities.context_size
        if context_size is not None and reduced:
            config = attrs.evolve(config, context_size=context_size)
            self._reports.context_reduced(model, context_size)
        if chosen.capabilities.prompt_cache:
            config = bounded_prompt_cache(model, config)
        for path in model.paths:
            if not await runner.has_file(path):
                raise ModelFileMissing(path)
        alone = self.runners_of(model) == (runner_name,)
        wish = Wish(config, chosen, runner_name, runner, waits_for_machine=alone)
        started = await self._started(wish)
        return self._took(started, model)

    async def adopt(self, record: ServerRecord, model: Model) -> RunningServer | None:
        """Take over the ready server on record, which another process started.

        One that a gateway started is this owner's from now on; one that was started by hand
        stays its starter's. Returns ``None``, and stops it, if ``model`` would be served
        otherwise today; by hand it is as its starter wanted it.

        Raises:
            NotRunning: it has ended meanwhile.
        """
        handle = record.handle
        assert handle is not None
        by_hand = record.owner.kind is OwnerKind.STANDALONE
        wish = config_for(model, {}, record.engine)
        if wish.context_size is None:
            # What there was room for then.
            wish = attrs.evolve(wish, context_size=record.config.context_size)
        if wish.cache_ram_mib is None:
            # What was chosen for that.
            wish = attrs.evolve(wish, cache_ram_mib=record.config.cache_ram_mib)
        elsewhere = record.runner not in self.runners_of(model)
        if not by_hand and (elsewhere or wish != record.config):
            await self.stop_record(record)
            return None
        await self._runners[record.runner].adopt(handle)
        props = ServerProps()
        if record.engine in self._engines:
            engine = self._engines[record.engine]
            props = await self._questions.props(engine, handle, record.api_key)
        if not by_hand:
            record = attrs.evolve(record, owner=self._owner)
            await self._registry.put(record)
        server = self._took(Started(record, handle, 0.0, props), model)
        self._reports.adopted(record, handle)
        return server

    async def hand_back(self, record: ServerRecord) -> None:
        """Leave a server that was adopted as it was on ``record``, to whoever looks next."""
        self._servers.pop(record.server_id, None)
        await self._registry.put(record)

    async def discard(self, record: ServerRecord) -> None:
        """End a server on record whose model is no more, unless it was started by hand."""
        if record.owner.kind is not OwnerKind.STANDALONE:
            await self.stop_record(record)

    async def let_go(self, server: RunningServer) -> None:
        """End the server, unless it was started by hand: then it runs on, and is forgotten here."""
        if server.by_hand:
            self._servers.pop(server.server_id, None)
        else:
            await self.stop(server)

    async def stop(self, server: RunningServer) -> None:
        """End the server; return when it is gone and its row too. Ended already is as good.

        Cancelling does not call it off.

        Raises:
            StopFailed: it survived; its row stays, as failed.
        """
        if server.server_id in self._servers:
            await self.stop_record(server.record)

    async def stop_record(self, record: ServerRecord) -> None:
        """End the server on record, whoever started it. Otherwise like ``stop``."""
        while (other := self._stopping.get(record.server_id)) is not None:
            await other.wait()
            if await self._registry.get(record.server_id) is None:
                return
        done = self._stopping[record.server_id] = anyio.Event()
        try:
            with anyio.CancelScope(shield=True):
                await self._stop(record)
        finally:
            del self._stopping[record.server_id]
            done.set()

    async def stop_all(self) -> None:
        """End every server this service started, at once; return when all are gone.

        Raises:
            StopFailed: one survived; the others are stopped all the same.
        """
        failures: list[Exception] = []

        async def stop(server: RunningServer) -> None:
            try:
                await self.stop(server)
            except Exception as error:
                failures.append(error)

        async with anyio.create_task_group() as stops:
            for server in self.servers:
                stops.start_soon(stop, server)
        if failures:
            raise failures[0]

    async def wait_gone(self, server: RunningServer) -> int | None:
        """Return when its process has ended: the exit status, where it can be known."""
        return await self._runners[server.record.runner].wait(server.handle)

    async def health(self, server: RunningServer) -> ServerHealth:
        """Ask the server how it is, once.

        Raises:
            NotRunning: its process does not exist.
        """
        return await self._runners[server.record.runner].health(server.handle)

    async def way_to(self, server: RunningServer) -> NodeUnreachable | None:
        """Return why there is no way to the server now, if so; see ``ProcessRunner.way_to``."""
        return await self._runners[server.record.runner].way_to(server.handle)

    async def is_running(self, record: ServerRecord) -> bool:
        """Return whether the server on record, which was spawned, has not ended.

        Raises:
            NodeUnreachable: its machine cannot be asked.
        """
        assert record.handle is not None
        return await self._runners[record.runner].is_running(record.handle)

    def take_left(self) -> list[ServerRecord]:
        """Return, once each, what starts left on machines that had gone away: to be stopped."""
        left = self._left.copy()
        self._left.clear()
        return left

    def answers_while_busy(self, server: RunningServer) -> bool:
        """Whether a server of its engine that does not answer hangs, whatever it works on."""
        name = server.engine
        return name in self._engines and self._engines[name].capabilities.answers_while_busy

    def _took(self, started: Started, model: Model) -> RunningServer:
        """Count a ready server as one of this service's."""
        props = started.props
        server = RunningServer(
            record=started.record,
            handle=started.handle,
            model=model,
            load_s=started.load_s,
            slots_total=props.slots_total or started.record.config.parallel,
            context_size=props.context_size,
        )
        self._servers[server.server_id] = server
        return server

    async def _started(self, wish: Wish) -> Started:
        for _ in range(_PORT_RETRIES):
            try:
                return await self._starter.start(wish)
            except PortLost:
                continue
        try:
            return await self._starter.start(wish)
        except PortLost as lost:
            raise lost.failure from None

    async def _stop(self, record: ServerRecord) -> None:
        runner = self._runners[record.runner]
        known = await self._registry.get(record.server_id)
        if known is not None:
            await self._registry.put(attrs.evolve(known, state=ServerState.STOPPING))
        began = self._clock.monotonic()
        handle = record.handle or await self._found(runner, record.server_id)
        ended_already = handle is None
        if handle is not None:
            try:
                await runner.stop(handle)
            except NotRunning:
                ended_already = True
            except Exception as error:
                if known is not None:
                    await self._registry.put(attrs.evolve(known, state=ServerState.FAILED))
                self._reports.failed(record, error)
                raise
        await self._registry.remove(record.server_id)
        self._servers.pop(record.server_id, None)
        if not ended_already:
            self._reports.stopped(record, self._clock.monotonic() - began)
        elif known is not None:
            status = None if handle is None else await runner.wait(handle)
            with_status = "" if status is None else f" with status {status}"
            self._reports.failed(record, f"it had ended by itself{with_status}")

    async def _found(self, runner: ProcessRunner, server_id: str) -> ProcessHandle | None:
        """Return the handle of a server whose spawn was never recorded."""
        for handle in await runner.list_running():
            if handle.server_id == server_id:
                return handle
        return None
