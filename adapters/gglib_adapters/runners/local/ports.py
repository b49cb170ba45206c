"""TCP ports of this machine: a free one, and who listens on one."""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
from collections.abc import Iterable, Set

import psutil

from gglib.errors import PortInUse
from gglib_adapters.process_table import holder_of_port

__all__ = ["choose_port", "foreign_holder", "is_free"]

_HOST = "127.0.0.1"
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


def is_free(port: int) -> bool:
    """Return whether a server could listen on ``port`` now. 0 is free always."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        if os.name == "posix":
            # What is left of ended connections is not in the way; a listener still is.
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((_HOST, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def choose_port(wanted: int | None, base: int, taken: Set[int]) -> int:
    """Return ``wanted``, else the first free port from ``base`` on, else one from the system.

    ``taken`` are those promised to servers that may not listen yet.

    Raises:
        PortInUse: ``wanted`` is not free. Its holder is not looked for here.
    """
    if wanted is not None:
        if wanted in taken or not is_free(wanted):
            raise PortInUse(wanted)
        return wanted
    if base:
        for port in range(base, 65536):
            if port not in taken and is_free(port):
                return port
    while (port := _assigned_by_system()) in taken:
        continue
    return port


def _assigned_by_system() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.bind((_HOST, 0))
        port: int = trial.getsockname()[1]
        return port


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
