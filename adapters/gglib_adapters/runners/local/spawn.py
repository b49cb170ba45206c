"""How a server's process comes into being."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["spawn"]


def spawn(
    command: Sequence[str], *, environment: Mapping[str, str], directory: Path, output: int
) -> int:
    """Start ``command`` in its own session, writing to the descriptor ``output``; return its pid.

    Blocks until the program has been executed: for a worker thread. The caller reaps it.

    Raises:
        OSError, ValueError: it could not be executed.
    """
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd=directory,
        env=dict(environment),
        close_fds=True,
        start_new_session=os.name == "posix",
    )
    # The server may outlive this object and this process: Popen would warn of that, and would
    # collect the exit status behind the back of who waits for it.
    process.returncode = 0
    return process.pid
