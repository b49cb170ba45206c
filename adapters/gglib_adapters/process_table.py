"""The machine's process table, read with psutil. Adapters share what is below the class."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil

from gglib.ports.context import AdapterContext
from gglib.ports.process_table import ProcessIdentity, ProcessTable
from gglib_adapters.process_memory import tree_memory_bytes, tree_own_memory_bytes

__all__ = [
    "START_TIME_TOLERANCE_S",
    "PsutilProcessTable",
    "holder_of_port",
    "node_name",
    "open_process_table",
]

#: The kernel reports its boot time in whole seconds, and that moves when the clock is slewed.
START_TIME_TOLERANCE_S = 2.0

_UNKNOWN_HOLDER = "a process of another user"


def node_name() -> str:
    """Return the name under which this machine's processes are recorded."""
    return socket.gethostname()


def holder_of_port(port: int) -> str | None:
    """Return who listens on TCP ``port``: ``name (pid N)``, or ``None`` if nobody does."""
    try:
        connections = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return None
    found = None
    for connection in connections:
        listens = connection.status == psutil.CONN_LISTEN
        if not listens or not connection.laddr or connection.laddr.port != port:
            continue
        found = _UNKNOWN_HOLDER
        if connection.pid is None:
            continue
        try:
            return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
        except psutil.Error:
            continue
    return found


class PsutilProcessTable(ProcessTable):
    """What psutil can see."""

    __slots__ = ("_identity",)

    def __init__(self) -> None:
        pid = os.getpid()
        self._identity = ProcessIdentity(node_name(), pid, psutil.Process(pid).create_time())

    def identity(self) -> ProcessIdentity:
        """Return who this process is."""
        return self._identity

    def is_alive(self, node: str, pid: int, process_started_at: float) -> bool:
        """Return whether that very process lives."""
        if node != self._identity.node:
            return True
        try:
            process = psutil.Process(pid)
            started_at = process.create_time()
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
        except psutil.AccessDenied:
            return True
        except (psutil.Error, ValueError, OverflowError):
            return False
        return abs(started_at - process_started_at) <= START_TIME_TOLERANCE_S

    def holder_of_port(self, port: int) -> str | None:
        """Return who listens on TCP ``port``."""
        return holder_of_port(port)

    def memory_bytes(self, pid: int) -> int | None:
        """Return the resident memory of a process and all its descendants."""
        return tree_memory_bytes(pid)

    def own_memory_bytes(self, pid: int) -> int | None:
        """Return the part of it that no file backs."""
        return tree_own_memory_bytes(pid)


@asynccontextmanager
async def open_process_table(context: AdapterContext) -> AsyncIterator[PsutilProcessTable]:
    """Open this machine's process table; it has no settings."""
    del context
    yield PsutilProcessTable()
