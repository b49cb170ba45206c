"""Starting and ending far servers, each in a task of its own that no caller can cut short."""

from __future__ import annotations

import random
import re
import secrets
from contextlib import suppress

import anyio
import anyio.abc
import attrs

from gglib.domain.config import SERVER_ID_VARIABLE, ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.domain.ids import check_server_id, new_server_id
from gglib.errors import NodeUnreachable, NotRunning, PortInUse, StartFailed, StopFailed
from gglib.ports.context import AdapterContext
from gglib.ports.engine import Engine
from gglib_adapters.runners.ssh.far_servers import FarServers, Order
from gglib_adapters.runners.ssh.link import Link
from gglib_adapters.runners.ssh.settings import SshRunnerSettings

__all__ = ["Lifecycle"]

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Where a port is drawn from when none is wished for: below those of outgoing connections.
_FIRST_PORT, _LAST_PORT = 20_000, 32_000
_DRAWS = 30
_FIRST_LOOK_S, _LATER_LOOK_S = 0.005, 0.05


@attrs.define(eq=False)
class _Start:
    """A start under way."""

    settled: anyio.Event = attrs.field(factory=anyio.Event)
    handle: ProcessHandle | None = None
    error: Exception | None = None


@attrs.define(eq=False)
class _Ending:
    """A stop under way; every caller waits for the same one."""

    done: anyio.Event = attrs.field(factory=anyio.Event)
    error: Exception | None = None


class Lifecycle:
    """The beginnings and ends of one runner's servers."""

    __slots__ = (
        "_context",
        "_doubtful",
        "_endings",
        "_link",
        "_servers",
        "_settings",
        "_tasks",
        "_unended",
    )

    def __init__(
        self,
        context: AdapterContext,
        settings: SshRunnerSettings,
        tasks: anyio.abc.TaskGroup,
        link: Link,
        servers: FarServers,
    ) -> None:
        self._context = context
        self._settings = settings
        self._tasks = tasks
        self._link = link
        self._servers = servers
        self._endings: dict[ProcessHandle, _Ending] = {}
        self._doubtful: dict[str, str] = {}
        self._unended: set[ProcessHandle] = set()

    async def start(self, config: ServerConfig, engine: Engine) -> ProcessHandle:
        """Start a server; if cancelled, return when nothing is left of it."""
        environment = self._environment(config, engine)
        # Cancellable: nothing has been asked for yet.
        await self._link.machine()
        start = _Start()
        self._tasks.start_soon(self._begin, start, config, engine, environment)
        try:
            await start.settled.wait()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await start.settled.wait()
                if start.handle is not None:
                    with suppress(NotRunning, NodeUnreachable):
                        await self.stop(start.handle)
            raise
        if start.error is not None:
            raise start.error
        assert start.handle is not None
        return start.handle

    async def stop(self, handle: ProcessHandle) -> None:
        """End a server in a task of its own, which a cancelled caller leaves at work."""
        ending = self._endings.get(handle)
        if ending is None:
            ending = self._endings[handle] = _Ending()
            self._tasks.start_soon(self._end, handle, ending, name="gglib.ssh.stop")
        await ending.done.wait()
        if ending.error is not None:
            raise ending.error

    @property
    def has_doubts(self) -> bool:
        """Whether something there is still to be ended."""
        return bool(self._doubtful or self._unended)

    async def settle_doubts(self) -> None:
        """End what was started, or not stopped, while the machine was out of reach."""
        for server_id, nonce in list(self._doubtful.items()):
            with suppress(NodeUnreachable):
                await self._servers.discard(server_id, nonce)
                self._doubtful.pop(server_id, None)
        for handle in list(self._unended):
            with suppress(NodeUnreachable):
                with suppress(NotRunning, StopFailed):
                    await self.stop(handle)
                self._unended.discard(handle)

    def _environment(self, config: ServerConfig, engine: Engine) -> dict[str, str]:
        identity = config.server_id or new_server_id()
        variables = {
            **engine.environment(config),
            **config.environment,
            SERVER_ID_VARIABLE: check_server_id(identity),
        }
        for name in variables:
            if not _VARIABLE.fullmatch(name):
                reason = f"'{name}' cannot be the name of a variable on {self._settings.host}"
                raise StartFailed(config.model_name, None, (), reason)
        return variables

    async def _begin(
        self, start: _Start, config: ServerConfig, engine: Engine, environment: dict[str, str]
    ) -> None:
        with anyio.CancelScope(shield=True):
            try:
                start.handle = await self._started(config, engine, environment)
                await self._link.lead(start.handle.server_id, start.handle.port)
            except Exception as error:
                start.error = error
            start.settled.set()
        if start.handle is not None:
            with suppress(NodeUnreachable):
                old = await self._servers.ended_of(config.model_name)
                stale = [handle.server_id for handle in old[self._settings.log_keep :]]
                await self._servers.forget(stale)

    async def _started(
        self, config: ServerConfig, engine: Engine, environment: dict[str, str]
    ) -> ProcessHandle:
        server_id = environment[SERVER_ID_VARIABLE]
        for _ in range(_DRAWS):
            port = await self._port(config)
            handle = attrs.evolve(
                self._context.handle_for(
                    config,
                    port=port,
                    node=self._settings.host,
                    base_url=self._link.forwards.base_url(server_id),
                ),
                server_id=server_id,
            )
            order = Order(
                handle=handle,
                engine=engine.name,
                nonce=secrets.token_hex(8),
                directory=str(engine.working_directory or ""),
                environment=environment,
                command=engine.command(config, port),
            )
            try:
                return await self._servers.start(order)
            except PortInUse:
                if config.port is not None:
                    raise
            except NodeUnreachable:
                self._doubtful[server_id] = order.nonce
                self._link.wake()
                raise
        reason = f"{self._settings.host} has no free port for it"
        raise StartFailed(config.model_name, None, (), reason)

    async def _port(self, config: ServerConfig) -> int:
        if config.port is not None:
            return config.port
        if config.base_port:
            found = await self._servers.free_port(config.base_port)
            if found is not None:
                return found
        return random.randint(_FIRST_PORT, _LAST_PORT)  # noqa: S311 - no secret

    async def _end(self, handle: ProcessHandle, ending: _Ending) -> None:
        with anyio.CancelScope(shield=True):
            try:
                await self._terminate(handle)
            except NodeUnreachable as error:
                # It will be ended when its machine returns, as it was wished.
                self._unended.add(handle)
                self._link.wake()
                ending.error = error
            except Exception as error:
                ending.error = error
            finally:
                del self._endings[handle]
                ending.done.set()

    async def _terminate(self, handle: ProcessHandle) -> None:
        state = await self._servers.state(handle.server_id)
        ours = handle.node == self._settings.host and state.is_of(handle)
        if not ours:
            raise NotRunning(handle.model_name)
        ender = await self._servers.ask_to_end(handle, grace_s=self._settings.stop_grace_s)
        if ender is None:
            raise NotRunning(handle.model_name)
        pause_s = _FIRST_LOOK_S
        while True:
            over, survivors = await self._servers.ended(handle.server_id, ender)
            if over:
                break
            await anyio.sleep(pause_s)
            pause_s = min(1.5 * pause_s, _LATER_LOOK_S)
        if survivors:
            raise StopFailed(handle.model_name, survivors)
        await self._link.forwards.remove(handle.server_id)
        if not state.running:
            raise NotRunning(handle.model_name)
