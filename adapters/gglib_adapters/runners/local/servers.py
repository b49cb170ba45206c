"""Servers this process started, from the wish for one to its collected exit status."""

from __future__ import annotations

import os

import anyio
import attrs

from gglib.domain.config import ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.ports.engine import Engine
from gglib_adapters.runners.local import processes
from gglib_adapters.runners.local.processes import Process

__all__ = ["Child", "Ending", "Launch", "collect_abandoned"]

#: Children that outlived their runner. Collected when another opens, or closes, in this process.
_abandoned: set[int] = set()


def collect_abandoned() -> None:
    """Collect what has ended of the children that earlier runners of this process left."""
    for pid in list(_abandoned):
        process = processes.read(pid)
        if process is None or (not process.alive and processes.reap(pid) is not None):
            _abandoned.discard(pid)


@attrs.define(eq=False)
class Launch:
    """A start under way. ``settled`` is set once there is a child or an error."""

    config: ServerConfig
    engine: Engine
    settled: anyio.Event = attrs.field(factory=anyio.Event)
    child: Child | None = None
    error: Exception | None = None


@attrs.define(eq=False)
class Child:
    """A server whose parent is this process."""

    handle: ProcessHandle
    process: Process
    engine: str
    exited: anyio.Event = attrs.field(factory=anyio.Event)
    """Set when it is dead, with ``status`` known; it is not collected yet."""
    status: int | None = None
    stopping: bool = False
    ended: anyio.Event = attrs.field(factory=anyio.Event)
    """Set when nothing of it is left and nobody watches it any more."""
    collected: bool = False

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        if self.exited.is_set():
            return False
        now = processes.read(self.process.pid)
        return now == self.process and now.alive

    def peek(self) -> None:
        """Learn the exit status and leave the process uncollected: that keeps its pid its own."""
        if not hasattr(os, "waitid"):
            self.collect()
            return
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        try:
            result = os.waitid(os.P_PID, self.process.pid, options)
        except ChildProcessError:
            return
        if result is not None:
            exited = result.si_code == os.CLD_EXITED
            self.status = result.si_status if exited else -result.si_status

    def collect(self) -> None:
        """Collect the dead process, once: afterwards its pid may be somebody else's."""
        if not self.collected:
            self.collected = True
            status = processes.reap(self.process.pid)
            if self.status is None:
                self.status = status

    def abandon(self) -> None:
        """Stop watching a child that is to live on."""
        _abandoned.add(self.process.pid)


@attrs.define(eq=False)
class Ending:
    """A stop under way; every caller waits for the same one."""

    done: anyio.Event = attrs.field(factory=anyio.Event)
    error: Exception | None = None
