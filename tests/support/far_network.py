"""A network of two machines, for tests: two namespaces of this one, and a line between them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
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
        return [*_within(self.far), f"--mount=/proc/{self.far}/ns/mnt"]

    def far_run(self, *command: str) -> None:
        """Run a command on the far machine."""
        subprocess.run([*self.far_prefix, *command], check=True)

    def near_path(self) -> str:
        """Return a ``PATH`` whose ssh reaches the far machine; all else is as it was."""
        ssh = shutil.which("ssh")
        assert ssh is not None
        wrapper = self.folder / "bin" / "ssh"
        wrapper.parent.mkdir(exist_ok=True)
        nsenter = shlex.join([*_within(self.near), ssh])
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

    def restart_far(self) -> None:
        """Let the far machine lose its power, and come up as another boot of it, unplugged."""
        self.unplug()
        there = self.far_processes()
        for process in there:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        boot_id = self.folder / "boot_id"
        boot_id.write_text(f"{uuid.uuid4()}\n")
        self.far_run("mount", "--bind", str(boot_id), "/proc/sys/kernel/random/boot_id")

    def far_processes(self) -> list[psutil.Process]:
        """Return what runs on the far machine."""
        there = Path(f"/proc/{self.far}/ns/net").readlink()
        found = []
        for process in psutil.process_iter():
            try:
                if Path(f"/proc/{process.pid}/ns/net").readlink() == there:
                    found.append(process)
            except OSError:
                continue
        return [process for process in found if process.pid != self.far]

    def _address(self, *, far_mac: str, near_mac: str) -> None:
        for namespace, there, mac in ((self.near, FAR, far_mac), (self.far, NEAR, near_mac)):
            way = ("lladdr", mac, "dev", "line", "nud", "permanent")
            _ip(namespace, "neigh", "replace", there, *way)


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
        # As it was before Linux 6.5: a connection is tried after 1, 3, 7 s, and not each second.
        tries = Path("/proc/sys/net/ipv4/tcp_syn_linear_timeouts")
        if tries.exists():
            subprocess.run([*_within(near), "sh", "-c", f"echo 0 > {tries}"], check=True)
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
    subprocess.run([*_within(namespace), "ip", *words], check=True)


def _within(namespace: int) -> list[str]:
    return ["nsenter", f"--net=/proc/{namespace}/ns/net"]
