"""Another machine, for tests: this one, behind an OpenSSH server of our own.

On the loopback, or on a network of its own.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import attrs
import psutil

from support.extras import require_sshd
from support.far_network import FAR, FarNetwork

__all__ = ["FarMachine", "far_machine", "readers_of"]

_PATIENCE_S = 10.0


@attrs.define
class FarMachine:
    """``ssh -F config HOST`` leads to it."""

    folder: Path
    port: int
    sshd: str
    network: FarNetwork | None = None
    host: str = "box"
    process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        """What ssh has to know."""
        return self.folder / "ssh_config"

    @property
    def settings(self) -> dict[str, object]:
        """The section of a runner that runs servers there."""
        return {
            "host": self.host,
            "ssh_config": str(self.config),
            "data_dir": str(self.folder / "far"),
            "connect_timeout_s": 5,
            # It plays another one: by its kernel it is this one.
            "shares_memory": False,
        }

    def start(self) -> None:
        """Let it be reached."""
        prefix = self.network.far_prefix if self.network is not None else []
        said = self.folder / "sshd.log"
        with said.open("ab") as log:
            before = log.tell()
            self.process = subprocess.Popen(
                [*prefix, self.sshd, "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + _PATIENCE_S
        while b"Server listening" not in said.read_bytes()[before:]:
            assert self.process.poll() is None, said.read_text()
            assert time.monotonic() < until, "sshd does not listen"
            time.sleep(0.005)

    def sessions(self) -> list[psutil.Process]:
        """Return the processes of sshd that carry a connection."""
        if self.process is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def go_away(self) -> None:
        """Refuse and cut every connection; what runs there runs on."""
        assert self.process is not None
        carriers = [each for each in self.sessions() if each.name().startswith("sshd")]
        self.process.terminate()
        self.process.wait()
        self.process = None
        for carrier in carriers:
            with contextlib.suppress(psutil.NoSuchProcess):
                carrier.kill()

    def restart(self) -> None:
        """Lose its power, and come up as another boot, reached over its network again."""
        assert self.network is not None
        assert self.process is not None
        self.network.restart_far()
        self.process.wait()
        self.start()
        self.network.plug()

    def masters(self) -> list[psutil.Process]:
        """Return the ssh processes of this machine that hold a connection there."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if str(self.config) in words and "ControlMaster=yes" in words:
                found.append(process)
        return found

    def cut(self) -> int:
        """Kill every ssh that holds a connection; return how many there were."""
        masters = self.masters()
        for process in masters:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        return len(masters)


def readers_of(path: Path) -> list[psutil.Process]:
    """Return the processes whose standard input is a file."""
    readers = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            if Path(f"/proc/{pid}/fd/0").readlink() == path:
                readers.append(psutil.Process(pid))
    return readers


@contextmanager
def far_machine(
    folder: Path, network: FarNetwork | None = None, *, host: str = "box"
) -> Iterator[FarMachine]:
    """Give a machine that is there, until the block ends."""
    sshd = require_sshd()
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for name in ("host_key", "user_key"):
        key = folder / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    (folder / "authorized_keys").write_text((folder / "user_key.pub").read_text())
    address = "127.0.0.1" if network is None else FAR
    port = _free_port() if network is None else 2222
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress {address}\nHostKey {folder}/host_key\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
        # A home of its own: nobody's login scripts, and no files of theirs.
        f"SetEnv HOME={folder}/home\nPidFile none\nPermitRootLogin prohibit-password\n"
        "MaxStartups 100\nMaxSessions 100\nUseDNS no\n"
    )
    (folder / "home").mkdir()
    host_key = (folder / "host_key.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[{address}]:{port} {host_key[0]} {host_key[1]}\n")
    (folder / "ssh_config").write_text(
        f"Host {host}\n  HostName {address}\n  Port {port}\n  User {getpass.getuser()}\n"
        f"  IdentityFile {folder}/user_key\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder}/known_hosts\n"
        # What takes the least time.
        "  KexAlgorithms curve25519-sha256\n  GSSAPIAuthentication no\n"
    )
    machine = FarMachine(folder, port, sshd, network, host)
    machine.start()
    try:
        yield machine
    finally:
        if machine.process is not None:
            machine.go_away()


def _free_port() -> int:
    with closing(socket.socket()) as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
    return port
