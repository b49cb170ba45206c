"""A free TCP port of this machine, for runners whose servers listen on one."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Set

from gglib.errors import PortInUse

__all__ = ["choose_port", "is_free"]

_HOST = "127.0.0.1"


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
