"""The process runner of this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.abc
import anyio.to_thread

from gglib.domain.config import ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.domain.health import ServerHealth
from gglib.errors import NotRunning
from gglib.ports.context import AdapterContext
from gglib.ports.process_runner import ProcessRunner
from gglib_adapters.free_port import is_free
from gglib_adapters.process_table import node_name
from gglib_adapters.runners.local import identity, processes
from gglib_adapters.runners.local.checkup import Checkup
from gglib_adapters.runners.local.identity import Site
from gglib_adapters.runners.local.lifecycle import Lifecycle
from gglib_adapters.runners.local.logs import LogFolder
from gglib_adapters.runners.local.servers import collect_abandoned
from gglib_adapters.runners.local.settings import LocalRunnerSettings
from gglib_adapters.runners.section import read_section

__all__ = ["LocalProcessRunner", "open_local_runner"]

T = TypeVar("T")

_ROTATION_INTERVAL_S = 1.0
_FOLLOW_INTERVAL_S = 0.1
#: Threads for looking at processes and files, apart from those that user code may exhaust.
_THREADS = 8


class LocalProcessRunner(ProcessRunner):
    """Runs servers as processes of this machine. Make one with ``open_local_runner``.

    Closing it ends its own tasks and files and leaves the servers running: whose they are,
    and when they end, is the serving service's to say.
    """

    __slots__ = ("_checkup", "_clock", "_life", "_limiter", "_logs", "_site")

    def __init__(
        self,
        context: AdapterContext,
        settings: LocalRunnerSettings,
        tasks: anyio.abc.TaskGroup,
    ) -> None:
        self._clock = context.clock
        self._limiter = anyio.CapacityLimiter(_THREADS)
        self._site = Site(node=node_name(), data_dir=context.data_dir, runner=context.name)
        self._logs = LogFolder(
            context.data_dir / "logs", max_bytes=settings.log_max_bytes, keep=settings.log_keep
        )
        self._life = Lifecycle(
            context, settings, tasks, site=self._site, logs=self._logs, limiter=self._limiter
        )
        self._checkup = Checkup(
            context, timeout_s=settings.health_timeout_s, site=self._site, limiter=self._limiter
        )

    async def start(self, config: ServerConfig) -> ProcessHandle:
        """Start a server; return as soon as its program runs."""
        return await self._life.start(config)

    async def stop(self, handle: ProcessHandle) -> None:
        """End the server and everything it started."""
        await self._life.stop(handle)
        self._checkup.forget(handle)

    async def is_running(self, handle: ProcessHandle) -> bool:
        """Return whether the process with this identity exists and is no zombie."""
        child = self._life.child_of(handle)
        if child is not None:
            return child.alive
        return await self._life.leader_of(handle) is not None

    async def health(self, handle: ProcessHandle) -> ServerHealth:
        """Ask the server how it is; the first good answer must come from its own processes."""
        if not await self.is_running(handle):
            self._checkup.forget(handle)
            raise NotRunning(handle.model_name)
        child = self._life.child_of(handle)
        # A process that is just being executed does not show what it carries yet.
        return await self._checkup.health(handle, child.engine if child is not None else None)

    async def list_running(self) -> list[ProcessHandle]:
        """Return every server of this data directory, oldest first, whoever started it."""
        found = {handle.server_id: handle for handle in await self._in_thread(self._life.scan)}
        for child in self._life.children:
            # A server may have overwritten the environment by which others find it.
            if child.alive:
                found[child.handle.server_id] = child.handle
        return sorted(found.values(), key=lambda handle: (handle.started_at, handle.server_id))

    async def has_file(self, path: Path) -> bool:
        """Return whether the file is on this machine."""
        return await self._in_thread(path.exists)

    async def port_is_taken(self, handle: ProcessHandle) -> bool:
        """Return whether somebody listens on the port of a server that has ended."""
        return not await self._in_thread(lambda: is_free(handle.port))

    async def logs(
        self, handle: ProcessHandle, *, tail: int = 20, follow: bool = False
    ) -> AsyncIterator[str]:
        """Yield the last lines of the server's output, then new ones while it runs."""
        reader = self._logs.reader(handle.model_name, handle.server_id)
        for line in await self._in_thread(lambda: reader.tail(tail, unfinished=not follow)):
            yield line
        running = follow
        while running:
            running = await self.is_running(handle)
            final = not running
            for line in await self._in_thread(lambda: reader.news(final=final)):  # noqa: B023 - awaited here
                yield line
            if running:
                with anyio.move_on_after(_FOLLOW_INTERVAL_S):
                    await self.wait(handle)

    async def past_servers(self, model_name: str) -> list[ProcessHandle]:
        """Return the model's ended servers whose output is kept, newest first."""
        running = {handle.server_id for handle in await self.list_running()}
        kept = await self._in_thread(lambda: self._logs.kept(model_name))
        return [
            identity.past_handle(model_name, server_id, self._site)
            for server_id in kept
            if server_id not in running
        ]

    async def wait(self, handle: ProcessHandle) -> int | None:
        """Return when the server is dead: its exit status where it is our child's."""
        child = self._life.child_of(handle)
        if child is not None:
            await child.exited.wait()
            return child.status
        leader = await self._life.leader_of(handle)
        if leader is not None:
            await processes.until_gone(leader)
        return self._life.status_of(handle)

    async def keep_logs_small(self) -> None:
        """Rotate for ever: the runner's own task."""
        while True:
            await self._clock.sleep(_ROTATION_INTERVAL_S)
            # A full or vanished disk must not take the servers' runner with it.
            with suppress(OSError):
                await self._in_thread(self._logs.rotate)

    async def aclose(self) -> None:
        """Close what is open; servers run on."""
        await self._checkup.aclose()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)


@asynccontextmanager
async def open_local_runner(context: AdapterContext) -> AsyncIterator[LocalProcessRunner]:
    """Open the runner of this machine; see ``LocalRunnerSettings`` for its settings.

    Raises:
        ConfigurationError: a setting is unknown or wrong.
    """
    settings = read_section(LocalRunnerSettings, context)
    collect_abandoned()
    raised: BaseException | None = None
    async with anyio.create_task_group() as tasks:
        runner = LocalProcessRunner(context, settings, tasks)
        tasks.start_soon(runner.keep_logs_small, name="gglib.local.logs")
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
    collect_abandoned()
    if raised is not None:
        raise raised
