"""Private sockets here that lead to ports of the far loopback."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import anyio
import anyio.to_thread

from gglib_adapters.runners.ssh.openssh import OpenSsh

__all__ = ["Forwards"]

_TIMEOUT_S = 10.0


class Forwards:
    """Which servers' sockets should lead where, and those that do.

    Another gglib on this data directory may hold a server's socket: then it is left to it, and
    taken over once nobody answers there.
    """

    __slots__ = ("_control", "_folder", "_held", "_lock", "_ssh", "_wanted")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._wanted: dict[str, int] = {}
        self._held: set[str] = set()
        self._ssh: OpenSsh | None = None
        self._control = folder
        self._lock = anyio.Lock()

    @property
    def wanted(self) -> Collection[str]:
        """The servers that are to be reached."""
        return self._wanted.keys()

    def path_of(self, server_id: str) -> Path:
        """Return the server's socket."""
        return self._folder / f"{server_id}.sock"

    def base_url(self, server_id: str) -> str:
        """Return where the server is reached from here."""
        return f"http+unix://{quote(str(self.path_of(server_id)))}"

    async def open(self, ssh: OpenSsh, control: Path) -> None:
        """Let every socket that is wanted lead through a connection that was just made."""
        self._ssh, self._control = ssh, control
        async with self._lock, anyio.create_task_group() as tasks:
            for server_id in list(self._wanted):
                tasks.start_soon(self._forward, server_id)

    def leave(self) -> None:
        """Remove the folder, unless another process of the data directory uses it."""
        self.close()
        with suppress(OSError):
            self._folder.rmdir()

    def close(self) -> None:
        """Take away the sockets that led through a connection that is gone."""
        self._ssh = None
        while self._held:
            self.path_of(self._held.pop()).unlink(missing_ok=True)

    async def add(self, server_id: str, port: int) -> None:
        """Let the server's socket lead to ``port`` whenever there is a connection."""
        if self._wanted.get(server_id) != port or server_id not in self._held:
            self._wanted[server_id] = port
            async with self._lock:
                if server_id not in self._held:
                    await self._forward(server_id)

    def give_up(self, server_ids: Collection[str]) -> None:
        """Let no new connection lead to servers that have ended: others may have their ports."""
        for server_id in server_ids:
            self._wanted.pop(server_id, None)

    async def leads_to(self, port: int) -> bool:
        """Return whether a socket can be made here that leads to a listening ``port`` there."""
        name = f"trial-{os.urandom(4).hex()}"
        await self.add(name, port)
        try:
            path = self.path_of(name)
            return name in self._held and await anyio.to_thread.run_sync(_stays_open, path)
        finally:
            await self.remove(name)

    async def remove(self, server_id: str) -> None:
        """Close the way to a server that is gone."""
        port = self._wanted.pop(server_id, None)
        if server_id in self._held:
            self._held.discard(server_id)
            path = self.path_of(server_id)
            path.unlink(missing_ok=True)
            if self._ssh is not None and port is not None:
                await _run(self._ssh.cancel(self._control, path, port))

    async def _forward(self, server_id: str) -> None:
        port, ssh = self._wanted.get(server_id), self._ssh
        path = self.path_of(server_id)
        if ssh is None or port is None:
            return
        try:
            if await anyio.to_thread.run_sync(_answers, path):
                return
            path.unlink(missing_ok=True)
        except OSError:
            # Who cannot look, as without a descriptor, takes nothing away from who may answer.
            return
        # What ssh cannot do now is seen by the health of the server, and tried again then.
        if await _run(ssh.forward(self._control, path, port)):
            # The connection may have been lost meanwhile; the next one makes its own way.
            if self._ssh is ssh:
                self._held.add(server_id)
            else:
                path.unlink(missing_ok=True)


def _answers(path: Path) -> bool:
    """Return whether somebody answers there.

    Raises:
        OSError: that cannot be tried.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        trial.settimeout(1)
        try:
            trial.connect(str(path))
        except OSError:
            return False
        return True


def _stays_open(path: Path) -> bool:
    """Return whether a connection is taken and not hung up on at once."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        trial.settimeout(1)
        try:
            trial.connect(str(path))
            return trial.recv(1) != b""
        except TimeoutError:
            return True
        except OSError:
            return False


async def _run(command: list[str]) -> bool:
    """Return whether ssh did as it was told."""
    with anyio.move_on_after(_TIMEOUT_S), suppress(OSError):
        done = await anyio.run_process(
            command, check=False, stdin=subprocess.DEVNULL, start_new_session=True
        )
        return done.returncode == 0
    return False
