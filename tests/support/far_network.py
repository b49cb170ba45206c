"""A network of two machines, for tests: two namespaces of this one, and a line between them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import psutil

from support.extras import require_namespaces

__all__ = ["FarNetwork", "far_network"]

NEAR, FAR = "10.77.0.1", "10.77.0.2"
#: Nobody's address on the line: what is sent there leaves, and is heard by nobody.
_NOWHERE = "02:00:00:00:00:99"
_NEAR_MAC, _FAR_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"


@attrs.define
class FarNetwork:
    """The far machine's network and mounts are its own; its processes and files are ours."""

    near: int
    """A process in the near namespace, and one in the far one."""
    far: int
    folder: Path

    @property
    def far_prefix(self) -> list[str]:
        """What a command begins with that is to run on the far machine."""
        return ["nsenter", f"--net=/proc/{self.far}/ns/net", f"--mount=/proc/{self.far}/ns/mnt"]

    def far_run(self, *command: str) -> None:
        """Run a command on the far machine."""
        subprocess.run([*self.far_prefix, *command], check=True)

    def near_path(self) -> str:
        """Return a ``PATH`` whose ssh reaches the far machine; all else is as it was."""
        ssh = shutil.which("ssh")
        assert ssh is not None
        wrapper = self.folder / "bin" / "ssh"
        wrapper.parent.mkdir(exist_ok=True)
        nsenter = shlex.join(["nsenter", f"--net=/proc/{self.near}/ns/net", ssh])
        wrapper.write_text(f'#!/bin/sh\nexec {nsenter} "$@"\n')
        wrapper.chmod(0o755)
        return f"{wrapper.parent}:{os.environ['PATH']}"

    def fall_silent(self) -> None:
        """Lose every packet, both ways; neither side is told."""
        self._address(far_mac=_NOWHERE, near_mac=_NOWHERE)

    def speak(self) -> None:
        """Carry packets again."""
        self._address(far_mac=_FAR_MAC, near_mac=_NEAR_MAC)

    def unplug(self) -> None:
        """Take the far machine off the line: the near one notices that its link is down."""
        self.far_run("ip", "link", "set", "line", "down")

    def plug(self) -> None:
        """Put it back."""
        self.far_run("ip", "link", "set", "line", "up")
        self.speak()

    def far_processes(self) -> list[psutil.Process]:
        """Return what runs on the far machine."""
        there = os.readlink(f"/proc/{self.far}/ns/net")
        found = []
        for process in psutil.process_iter():
            try:
                if os.readlink(f"/proc/{process.pid}/ns/net") == there:
                    found.append(process)
            except OSError:
                continue
        return [process for process in found if process.pid != self.far]

    def _address(self, *, far_mac: str, near_mac: str) -> None:
        for namespace, there, mac in ((self.near, FAR, far_mac), (self.far, NEAR, near_mac)):
            _ip(
                namespace,
                "neigh",
                "replace",
                there,
                "lladdr",
                mac,
                "dev",
                "line",
                "nud",
                "permanent",
            )


@contextmanager
def far_network(folder: Path) -> Iterator[FarNetwork]:
    """Make the two namespaces and the line; they end with the block and what runs in them."""
    require_namespaces()
    with ExitStack() as stack:
        near = stack.enter_context(_namespace("--net"))
        far = stack.enter_context(_namespace("--net", "--mount"))
        peer = ("peer", "name", "line", "address", _FAR_MAC, "netns", str(far))
        _ip(near, "link", "add", "line", "address", _NEAR_MAC, "type", "veth", *peer)
        for namespace, address in ((near, NEAR), (far, FAR)):
            _ip(namespace, "addr", "add", f"{address}/24", "dev", "line")
            _ip(namespace, "link", "set", "line", "up")
            _ip(namespace, "link", "set", "lo", "up")
        network = FarNetwork(near, far, folder)
        network.speak()
        yield network


@contextmanager
def _namespace(*kinds: str) -> Iterator[int]:
    """Give the pid of a process that keeps new namespaces, until the block ends."""
    with subprocess.Popen(
        ["unshare", *kinds, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as keeper:
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        try:
            keeper.stdin.write(b"made\n")
            keeper.stdin.flush()
            assert keeper.stdout.readline() == b"made\n"
            yield keeper.pid
        finally:
            keeper.kill()


def _ip(namespace: int, *words: str) -> None:
    subprocess.run(["nsenter", f"--net=/proc/{namespace}/ns/net", "ip", *words], check=True)
