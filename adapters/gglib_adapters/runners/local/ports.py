"""Whether a port's listener is who it should be."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable

import psutil

from gglib_adapters.process_table import holder_of_port

__all__ = ["foreign_holder"]

_LISTEN = b"0A"
#: Addresses that answer a connection to 127.0.0.1, as /proc/net/tcp and tcp6 write them.
_COVERING = frozenset(
    {
        b"0100007F",
        b"00000000",
        b"0" * 32,
        b"0000000000000000FFFF00000100007F",
    }
)
_SOCKET = re.compile(r"socket:\[(\d+)\]")


def foreign_holder(port: int, pids: Iterable[int]) -> str | None:
    """Return who else than ``pids`` listens on ``port``; ``None`` if they alone do.

    One that shares the port with them (SO_REUSEPORT) counts: connections would be split.
    Tens of milliseconds at worst: for a worker thread.
    """
    ours = _listening_inodes(pids) if sys.platform == "linux" else _ports_of(pids)
    there = _listeners(port) if sys.platform == "linux" else {port}
    if there and there <= ours:
        return None
    return holder_of_port(port) or "a process that has just ended"


def _listeners(port: int) -> set[int]:
    """Return the inodes of the sockets that answer on ``port``."""
    suffix = f"{port:04X}".encode()
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, "rb") as file:  # noqa: PTH123 - a kernel table, not a file
                next(file, None)
                for line in file:
                    fields = line.split(None, 10)
                    if fields[3] != _LISTEN:
                        # Listeners come first: what follows may be thousands of connections.
                        break
                    address, _, local_port = fields[1].partition(b":")
                    if local_port == suffix and address in _COVERING:
                        found.add(int(fields[9]))
        except OSError:
            continue
    return found


def _listening_inodes(pids: Iterable[int]) -> set[int]:
    found = set()
    for pid in pids:
        folder = f"/proc/{pid}/fd"
        try:
            names = os.listdir(folder)  # noqa: PTH208 - names only
        except OSError:
            continue
        for name in names:
            try:
                match = _SOCKET.match(os.readlink(f"{folder}/{name}"))  # noqa: PTH115
            except OSError:
                continue
            if match:
                found.add(int(match[1]))
    return found


def _ports_of(pids: Iterable[int]) -> set[int]:
    found = set()
    for pid in pids:
        try:
            connections = psutil.Process(pid).net_connections("tcp")
        except psutil.Error:
            continue
        found |= {c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN}
    return found
