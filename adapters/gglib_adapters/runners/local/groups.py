"""A server and everything it started: found, asked to end, and killed."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import anyio
import anyio.to_thread
import attrs

from gglib.domain.config import SERVER_ID_VARIABLE
from gglib_adapters.process_table import START_TIME_TOLERANCE_S
from gglib_adapters.runners.local import processes
from gglib_adapters.runners.local.processes import Process

__all__ = ["Family", "end"]

#: How long processes that were sent SIGKILL may take to go.
_KILL_WAIT_S = 5.0
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


@attrs.frozen
class Family:
    """What belongs to one server: its leader's session, its descendants, and its id's bearers."""

    server_id: str
    leader: Process
    """Proven to be the server's, alive or not collected yet, when this was made."""

    def members(self) -> list[Process]:
        """Return who of the family lives now, wherever it went. For a worker thread."""
        everyone = {process.pid: process for process in processes.snapshot()}
        everyone.pop(os.getpid(), None)
        earliest = self.leader.started_at - START_TIME_TOLERANCE_S
        younger = [process for process in everyone.values() if process.started_at >= earliest]
        session = self._session(everyone)
        found = {
            process.pid: process
            for process in younger
            if process.session == session or self._bears_id(process)
        }
        grown = True
        while grown:
            children = [p for p in younger if p.parent in found and p.pid not in found]
            found.update({process.pid: process for process in children})
            grown = bool(children)
        return list(found.values())

    def _session(self, everyone: dict[int, Process]) -> int | None:
        # A pid is not reused while its session has members; once it has none, it may be.
        holder = everyone.get(self.leader.pid, self.leader)
        return self.leader.pid if holder == self.leader else None

    def _bears_id(self, process: Process) -> bool:
        environment = processes.environment(process.pid)
        return environment is not None and environment.get(SERVER_ID_VARIABLE) == self.server_id


async def end(family: Family, *, grace_s: float, limiter: anyio.CapacityLimiter) -> list[Process]:
    """End all of ``family``: SIGTERM, ``grace_s`` seconds, SIGKILL. Return who survived that.

    Returns when they are dead; the kernel has closed their sockets by then.
    """
    found = await anyio.to_thread.run_sync(family.members, limiter=limiter)
    if found and grace_s > 0:
        _signal_all(family, found, signal.SIGTERM)
        with anyio.move_on_after(grace_s):
            await _until_all_gone(found)
    with anyio.move_on_after(_KILL_WAIT_S):
        # Again, until a look finds nobody: what is killed may just have forked.
        while found := await anyio.to_thread.run_sync(family.members, limiter=limiter):
            _signal_all(family, found, _KILL)
            await _until_all_gone(found)
    return found


def _signal_all(family: Family, members: list[Process], number: int) -> None:
    group = family.leader.pid
    # The whole group at once: a process that is just forking cannot slip through.
    if hasattr(os, "killpg") and any(process.group == group for process in members):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
        members = [process for process in members if process.group != group]
    for process in members:
        processes.send_signal(process, number)


async def _until_all_gone(members: list[Process]) -> None:
    for process in members:
        await processes.until_gone(process)
        # An orphan comes to us when we are the machine's first process, as in a container.
        if process.parent != os.getpid():
            processes.reap(process.pid)
