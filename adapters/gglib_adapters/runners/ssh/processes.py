"""Commands here that carry the connection: begun, listened to, and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import anyio.abc

__all__ = ["LastWords", "running"]

_LAST_WORDS_BYTES = 8192


class LastWords:
    """What a command says when something is wrong, as far as it matters."""

    def __init__(self) -> None:
        self._said = b""
        self._ended = anyio.Event()

    async def listen(self, process: anyio.abc.Process) -> None:
        """Read its standard error until that ends."""
        assert process.stderr is not None
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                said = self._said + await process.stderr.receive()
                self._said = said[-_LAST_WORDS_BYTES:]
        self._ended.set()

    async def all(self) -> str:
        """Return it when the command has ended, or soon."""
        with anyio.move_on_after(1):
            await self._ended.wait()
        return self._said.decode(errors="replace")


@asynccontextmanager
async def running(command: list[str]) -> AsyncIterator[anyio.abc.Process]:
    """Run a command in a session of its own, so that Ctrl-C is not for it; end it at the end."""
    process = await anyio.open_process(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        try:
            with suppress(ProcessLookupError):
                _kill(process)
        finally:
            with anyio.CancelScope(shield=True):
                await process.aclose()


def _kill(process: anyio.abc.Process) -> None:
    """Kill it, and leave its exit status to the event loop.

    ``Popen.kill`` looks for the status first, and takes away what asyncio is waiting for. A pid
    alone may be a stranger's by now; a descriptor of our own child is not.
    """
    if process.returncode is not None:
        return
    if sys.platform != "linux":
        process.kill()
        return
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    except OSError:
        # No descriptor is left, or Linux is older than 5.3: a lost status is the lesser evil.
        process.kill()
        return
    try:
        with suppress(ChildProcessError):
            # Fails for whatever is no child of ours; WNOWAIT takes no status away.
            os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)
