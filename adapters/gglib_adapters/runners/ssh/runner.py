"""The process runner of another machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.abc
from ulid import ULID

from gglib.domain.config import ServerConfig
from gglib.domain.device import Device
from gglib.domain.handle import ProcessHandle
from gglib.domain.health import ServerHealth
from gglib.domain.ids import check_server_id
from gglib.domain.server_memory import ServerMemory
from gglib.domain.way_step import WayStep
from gglib.errors import InvalidValue, NodeUnreachable, NotRunning
from gglib.ports.context import AdapterContext, EngineSet
from gglib.ports.engine import Engine
from gglib.ports.process_runner import ProcessRunner
from gglib_adapters.runners.section import read_section
from gglib_adapters.runners.ssh.checkup import Checkup
from gglib_adapters.runners.ssh.engines import FarEngines
from gglib_adapters.runners.ssh.examination import examine
from gglib_adapters.runners.ssh.far_devices import FarDevices
from gglib_adapters.runners.ssh.far_files import SshFiles
from gglib_adapters.runners.ssh.far_memory import FarMemory
from gglib_adapters.runners.ssh.far_servers import FarServers
from gglib_adapters.runners.ssh.lifecycle import Lifecycle
from gglib_adapters.runners.ssh.link import Link
from gglib_adapters.runners.ssh.openssh import Step
from gglib_adapters.runners.ssh.output import OutputReader
from gglib_adapters.runners.ssh.places import site_name, socket_folder
from gglib_adapters.runners.ssh.settings import SshRunnerSettings

__all__ = ["SshProcessRunner", "open_ssh_runner"]

_KEEPING_INTERVAL_S = 20.0
#: How long a request waits for a machine whose connection was cut under it.
_RETURN_S = 5.0
_FOLLOW_INTERVAL_S = 0.1
#: How often an end is looked for: soon after the start, and later.
_WATCHED_CLOSELY_S = 10.0
_FIRST_WATCH_S, _LATER_WATCH_S = 0.05, 0.5


class SshProcessRunner(ProcessRunner):
    """Runs servers on another machine. Make one with ``open_ssh_runner``.

    Closing it ends its connection and leaves the servers running. What it cannot reach it
    does not call dead: it raises ``NodeUnreachable``, or waits.
    """

    __slots__ = (
        "_checkup",
        "_context",
        "_devices",
        "_engines",
        "_files",
        "_life",
        "_link",
        "_memory",
        "_servers",
        "_settings",
    )

    def __init__(
        self,
        context: AdapterContext,
        settings: SshRunnerSettings,
        tasks: anyio.abc.TaskGroup,
        *,
        folder: Path,
        site: str,
    ) -> None:
        node = settings.host
        self._context = context
        self._settings = settings
        self._link = Link(
            settings,
            folder=folder,
            site=site,
            clock=context.clock,
            on_return=self._returned,
            has_work=lambda: self._life.has_doubts,
        )
        self._servers = FarServers(
            self._link, node=node, runner=context.name, orphan_ttl_s=settings.orphan_ttl_s
        )
        self._engines = FarEngines(self._link, node=node, path=settings.engine_path)
        self._devices = FarDevices(self._link, context.clock, node=node)
        self._memory = FarMemory(self._link, self._devices, context.clock)
        self._files = SshFiles(self._link, node=node)
        self._life = Lifecycle(context, settings, tasks, self._link, self._servers)
        self._checkup = Checkup(
            context, self._link, self._servers, node=node, timeout_s=settings.health_timeout_s
        )

    @property
    def files(self) -> SshFiles:
        """The files of the far machine."""
        return self._files

    async def devices(self) -> Sequence[Device]:
        """Return the memory of the far machine, and of its GPUs.

        Raises:
            NodeUnreachable: it cannot be asked.
        """
        return await self._devices.all()

    async def machine_id(self) -> str | None:
        """Return the far kernel's boot id, unless the settings say that its memory is its own.

        Raises:
            NodeUnreachable: it cannot be asked.
        """
        return await self._devices.machine_id() if self._settings.shares_memory else None

    async def memory(self, handle: ProcessHandle) -> ServerMemory | None:
        """Return what the processes of a server have there, and of its GPUs.

        Raises:
            NodeUnreachable: it cannot be asked.
        """
        return await self._memory.of(handle) if self._is_ours(handle) else None

    async def engine_there(self, engines: EngineSet, name: str | None) -> Engine:
        """Return the engine as it is on the far machine; see ``FarEngines.get``."""
        return await self._engines.get(engines, name)

    async def start(self, config: ServerConfig) -> ProcessHandle:
        """Start a server there; return when its process exists."""
        engine = await self._engines.get(self._context.engines, config.engine)
        handle = await self._life.start(config, engine)
        self._checkup.admit(handle, engine)
        return handle

    async def stop(self, handle: ProcessHandle) -> None:
        """End the server and everything it started, though the connection be cut meanwhile."""
        self._require_ours(handle)
        await self._life.stop(handle)
        self._checkup.forget(handle)
        self._memory.forget(handle)

    async def is_running(self, handle: ProcessHandle) -> bool:
        """Return whether the far machine says that this very process lives.

        Raises:
            NodeUnreachable: it cannot be asked.
        """
        if not self._is_ours(handle):
            return False
        state = await self._servers.state(handle.server_id)
        return state.running and state.is_of(handle)

    async def health(self, handle: ProcessHandle) -> ServerHealth:
        """Ask the server how it is, through its forward."""
        self._require_ours(handle)
        return await self._checkup.health(handle)

    async def list_running(self) -> list[ProcessHandle]:
        """Return every server of this data directory there, oldest first.

        Raises:
            NodeUnreachable: the machine cannot be asked.
        """
        running = [server.handle for server in await self._servers.all() if server.running]
        return sorted(running, key=lambda handle: (handle.started_at, handle.server_id))

    async def examine(self, model_files: Sequence[Path]) -> list[WayStep]:
        """Say how far the way leads: to a name, a connection, a shell, an engine, a port."""
        return await examine(
            self._settings,
            self._link,
            self._servers,
            self._engines,
            self._context.engines,
            model_files,
        )

    async def way_to(self, handle: ProcessHandle) -> NodeUnreachable | None:
        """Return why the machine cannot be reached; one that has just been lost is waited for."""
        try:
            with anyio.move_on_after(_RETURN_S):
                await self._link.machine()
                # That a server has ended is told by others: to one that has, nothing leads.
                await self._link.lead_again(handle.server_id, handle.port)
                return None
        except NodeUnreachable as error:
            return error
        return NodeUnreachable(
            self._settings.host, Step.CONNECT, "the connection was cut", "it is being made again"
        )

    async def adopt(self, handle: ProcessHandle) -> None:
        """Take over a server that runs there: from here on the way to it is kept open."""
        if not await self.is_running(handle):
            raise NotRunning(handle.model_name)
        await self._link.lead(handle.server_id, handle.port)

    async def has_file(self, path: Path) -> bool:
        """Return whether the file is on the far machine."""
        return await self._servers.exists(path)

    async def port_is_taken(self, handle: ProcessHandle) -> bool:
        """Return whether somebody there listens on the port of a server that has ended."""
        return await self._servers.port_is_taken(handle.port)

    async def logs(
        self, handle: ProcessHandle, *, tail: int = 20, follow: bool = False
    ) -> AsyncIterator[str]:
        """Yield the last lines of the server's output, then new ones while it runs.

        Raises:
            NodeUnreachable: the machine cannot be asked; a follower waits for it instead.
        """
        if not self._is_ours(handle):
            return
        reader = OutputReader(self._link, handle.server_id)
        for line in await reader.tail(tail, unfinished=not follow):
            yield line
        running = follow
        while running:
            try:
                lines = await reader.news()
            except NodeUnreachable:
                lines = []
            else:
                # What it said last is read in one more look.
                running = reader.running or bool(lines)
            for line in lines:
                yield line
            if running and not lines:
                await anyio.sleep(_FOLLOW_INTERVAL_S)

    async def past_servers(self, model_name: str) -> list[ProcessHandle]:
        """Return the model's ended servers whose output is kept, newest first."""
        return await self._servers.ended_of(model_name)

    async def wait(self, handle: ProcessHandle) -> int | None:
        """Return when the far machine says that the server is dead: its exit status."""
        if not self._is_ours(handle):
            return None
        began = self._context.clock.monotonic()
        while True:
            with suppress(NodeUnreachable):
                state = await self._servers.state(handle.server_id)
                if not state.is_of(handle):
                    return None
                if not state.running:
                    return await self._status(handle)
            watched_s = self._context.clock.monotonic() - began
            await anyio.sleep(_FIRST_WATCH_S if watched_s < _WATCHED_CLOSELY_S else _LATER_WATCH_S)

    async def keep(self) -> None:
        """Keep logs small and the lease of the servers alive, for ever: the runner's own task."""
        ttl_s = self._settings.orphan_ttl_s
        interval_s = _KEEPING_INTERVAL_S if ttl_s is None else min(_KEEPING_INTERVAL_S, ttl_s / 4)
        while True:
            await self._context.clock.sleep(interval_s)
            if self._link.is_up:
                with suppress(NodeUnreachable):
                    await self._renew_lease()
                    await self._link.ask("gglib_rotate", str(self._settings.log_max_bytes))

    async def stay_connected(self) -> None:
        """Make the connection, and make it again, for ever: the runner's own task."""
        await self._link.run()

    async def aclose(self) -> None:
        """Close what is open; servers run on."""
        await self._checkup.aclose()
        self._link.leave()

    async def _returned(self) -> None:
        with suppress(NodeUnreachable):
            await self._renew_lease()
        await self._life.settle_doubts()

    async def _renew_lease(self) -> None:
        if self._settings.orphan_ttl_s is not None:
            await self._link.ask("gglib_lease", str(ULID()))

    async def _status(self, handle: ProcessHandle) -> int | None:
        """Return the exit status, which is written a moment after the end."""
        for _ in range(20):
            state = await self._servers.state(handle.server_id)
            if state.exit_status is not None:
                return state.exit_status
            await anyio.sleep(_FIRST_WATCH_S)
        return None

    def _is_ours(self, handle: ProcessHandle) -> bool:
        """Return whether the handle can be of a server there; its id names a folder."""
        try:
            check_server_id(handle.server_id)
        except InvalidValue:
            return False
        return handle.node == self._settings.host

    def _require_ours(self, handle: ProcessHandle) -> None:
        if not self._is_ours(handle):
            raise NotRunning(handle.model_name)


@asynccontextmanager
async def open_ssh_runner(context: AdapterContext) -> AsyncIterator[SshProcessRunner]:
    """Open the runner of another machine; see ``SshRunnerSettings`` for its settings.

    It connects when it is first asked for something.

    Raises:
        ConfigurationError: a setting is missing, unknown or wrong.
        DataDirectoryUnusable: there is no private place for its sockets.
    """
    settings = read_section(SshRunnerSettings, context)
    folder = socket_folder(context.data_dir, context.name)
    site = site_name(context.data_dir, context.name)
    raised: BaseException | None = None
    async with anyio.create_task_group() as tasks:
        runner = SshProcessRunner(context, settings, tasks, folder=folder, site=site)
        tasks.start_soon(runner.stay_connected, name="gglib.ssh.connection")
        tasks.start_soon(runner.keep, name="gglib.ssh.keeping")
        try:
            yield runner
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:
            # Raised after the group: a caller's error is the caller's, not a group of one.
            raised = error
        finally:
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await runner.aclose()
    if raised is not None:
        raise raised
