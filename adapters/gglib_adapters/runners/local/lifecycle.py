"""Starting, watching and ending servers. Each has one task that ends with it."""

from __future__ import annotations

import os
from contextlib import suppress

import anyio
import anyio.abc
import anyio.to_thread
import attrs

from gglib.domain.config import ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.errors import NotRunning, PortInUse, StartFailed, StopFailed
from gglib.ports.context import AdapterContext
from gglib_adapters.free_port import choose_port
from gglib_adapters.process_table import holder_of_port
from gglib_adapters.runners.local import groups, identity, processes
from gglib_adapters.runners.local.groups import Family
from gglib_adapters.runners.local.identity import Site
from gglib_adapters.runners.local.logs import LogFolder
from gglib_adapters.runners.local.processes import Process
from gglib_adapters.runners.local.servers import Child, Ending, Launch
from gglib_adapters.runners.local.settings import LocalRunnerSettings
from gglib_adapters.runners.local.spawn import spawn

__all__ = ["Lifecycle"]

#: Exit statuses kept for callers who ask after the end.
_STATUSES_KEPT = 256


class Lifecycle:
    """The servers of one runner: its own children, and those it finds."""

    __slots__ = (
        "_children",
        "_context",
        "_endings",
        "_limiter",
        "_logs",
        "_promised",
        "_settings",
        "_site",
        "_statuses",
        "_tasks",
    )

    def __init__(
        self,
        context: AdapterContext,
        settings: LocalRunnerSettings,
        tasks: anyio.abc.TaskGroup,
        *,
        site: Site,
        logs: LogFolder,
        limiter: anyio.CapacityLimiter,
    ) -> None:
        self._context = context
        self._settings = settings
        self._tasks = tasks
        self._site = site
        self._logs = logs
        self._limiter = limiter
        self._children: dict[str, Child] = {}
        self._endings: dict[ProcessHandle, Ending] = {}
        self._promised: set[int] = set()
        self._statuses: dict[ProcessHandle, int | None] = {}

    @property
    def children(self) -> list[Child]:
        """Return the servers this runner started that have not ended."""
        return list(self._children.values())

    def child_of(self, handle: ProcessHandle) -> Child | None:
        """Return the child with exactly this identity."""
        child = self._children.get(handle.server_id)
        return child if child is not None and _same(child.handle, handle) else None

    async def leader_of(self, handle: ProcessHandle) -> Process | None:
        """Return the live process with the identity of ``handle``; never one with only its pid."""
        for child in self._children.values():
            # A child is known for what it is, also while it is being executed and does not
            # show yet what it carries.
            if child.handle.pid == handle.pid and child.alive:
                return child.process if _same(child.handle, handle) else None
        return await anyio.to_thread.run_sync(
            identity.leader_of, handle, self._site, limiter=self._limiter
        )

    def status_of(self, handle: ProcessHandle) -> int | None:
        """Return the exit status of a server that ended lately, where it is known."""
        return self._statuses.get(handle)

    def scan(self) -> list[ProcessHandle]:
        """Return the servers of this site that carry their handle. For a worker thread."""
        found: dict[str, tuple[tuple[bool, float, int], ProcessHandle]] = {}
        for process in processes.snapshot():
            carried = processes.environment(process.pid) or {}
            handle = identity.handle_carried_by(process, carried, self._site)
            if handle is None:
                continue
            # What a server starts inherits all it carries; the leader came first. Without it,
            # what it left behind stands for the server, so that it can be found and stopped.
            rank = (not process.leads_session, process.started_at, process.pid)
            if handle.server_id not in found or rank < found[handle.server_id][0]:
                found[handle.server_id] = (rank, handle)
        return [handle for _, handle in found.values()]

    async def start(self, config: ServerConfig) -> ProcessHandle:
        """Start a server in a task of its own; if cancelled, return when nothing is left of it."""
        engine = self._context.engines.for_config(config)
        await engine.probe()
        launch = Launch(config, engine)
        self._tasks.start_soon(self._live, launch, name=f"gglib.local.{config.model_name}")
        try:
            await launch.settled.wait()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await launch.settled.wait()
                if launch.child is not None:
                    with suppress(NotRunning):
                        await self.stop(launch.child.handle)
            raise
        if launch.error is not None:
            raise launch.error
        assert launch.child is not None
        return launch.child.handle

    async def stop(self, handle: ProcessHandle) -> None:
        """End a server in a task of its own, which a cancelled caller leaves at work."""
        ending = self._endings.get(handle)
        if ending is None:
            ending = self._endings[handle] = Ending()
            self._tasks.start_soon(self._end, handle, ending, name="gglib.local.stop")
        await ending.done.wait()
        if ending.error is not None:
            raise ending.error

    async def _live(self, launch: Launch) -> None:
        with anyio.CancelScope(shield=True):
            try:
                launch.child = await self._spawn(launch)
            except Exception as error:
                launch.error = error
            launch.settled.set()
        if launch.child is not None:
            await self._watch(launch.child)

    async def _spawn(self, launch: Launch) -> Child:
        config = launch.config
        try:
            port = choose_port(config.port, config.base_port, self._promised)
        except PortInUse as error:
            holder = await anyio.to_thread.run_sync(
                holder_of_port, error.port, limiter=self._limiter
            )
            raise PortInUse(error.port, holder) from None
        # Another start must not be given the port before this server listens on it.
        self._promised.add(port)
        try:
            command = launch.engine.command(config, port)
            draft = self._context.handle_for(
                config, port=port, node=self._site.node, engine=launch.engine
            )
            child = await anyio.to_thread.run_sync(
                self._spawn_now, launch, command, draft, limiter=self._limiter
            )
        except BaseException:
            self._promised.discard(port)
            raise
        self._children[draft.server_id] = child
        return child

    def _spawn_now(self, launch: Launch, command: list[str], draft: ProcessHandle) -> Child:
        config, engine = launch.config, launch.engine
        try:
            output = self._logs.open(draft.model_name, draft.server_id)
            try:
                pid = spawn(
                    command,
                    environment=identity.server_environment(config, engine, self._site, draft),
                    directory=engine.working_directory or self._context.data_dir,
                    output=output,
                )
            finally:
                os.close(output)
        except (OSError, ValueError) as error:
            reason = f"could not run '{command[0]}': {error}"
            raise StartFailed(draft.model_name, None, (), reason) from error
        with suppress(OSError):
            self._logs.prune(draft.model_name, lambda: self._ids_running(draft.server_id))
        process = processes.read(pid) or Process(pid, draft.started_at, 0, pid, pid, False)
        handle = attrs.evolve(draft, pid=pid, process_started_at=process.started_at)
        return Child(handle, process, engine.name)

    def _ids_running(self, newest: str) -> set[str]:
        return {newest, *self._children, *(handle.server_id for handle in self.scan())}

    async def _watch(self, child: Child) -> None:
        try:
            await processes.until_gone(child.process)
            child.peek()
            child.exited.set()
            with anyio.CancelScope(shield=True):
                await self._clear_up(child)
        finally:
            if not child.exited.is_set():
                child.abandon()
            child.ended.set()

    async def _clear_up(self, child: Child) -> None:
        """Leave nothing of a server whose leader has died."""
        family = Family(child.handle.server_id, child.process)
        if not child.stopping:
            # Whatever it started has lost its purpose, and may hold its memory and port.
            with suppress(OSError, RuntimeError):
                await groups.end(family, grace_s=0, limiter=self._limiter)
        child.collect()
        self._statuses[child.handle] = child.status
        while len(self._statuses) > _STATUSES_KEPT:
            del self._statuses[next(iter(self._statuses))]
        self._promised.discard(child.handle.port)
        del self._children[child.handle.server_id]

    async def _end(self, handle: ProcessHandle, ending: Ending) -> None:
        with anyio.CancelScope(shield=True):
            try:
                await self._terminate(handle)
            except Exception as error:
                ending.error = error
            finally:
                del self._endings[handle]
                ending.done.set()

    async def _terminate(self, handle: ProcessHandle) -> None:
        leader = await self.leader_of(handle)
        child = self.child_of(handle)
        if leader is None:
            if child is not None:
                await child.ended.wait()
            raise NotRunning(handle.model_name)
        if child is not None:
            child.stopping = True
        family = Family(handle.server_id, leader)
        survivors = await groups.end(
            family, grace_s=self._settings.stop_grace_s, limiter=self._limiter
        )
        if survivors:
            pids = tuple(sorted(process.pid for process in survivors))
            raise StopFailed(handle.model_name, pids)
        if child is not None:
            await child.ended.wait()


def _same(one: ProcessHandle, other: ProcessHandle) -> bool:
    return (one.server_id, one.pid, one.process_started_at, one.node) == (
        other.server_id,
        other.pid,
        other.process_started_at,
        other.node,
    )
