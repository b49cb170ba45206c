"""The system's OpenSSH: its command lines, and what its complaints mean."""

from __future__ import annotations

import shutil
from enum import StrEnum
from pathlib import Path

import attrs

from gglib.errors import NodeUnreachable
from gglib_adapters.runners.ssh.settings import SshRunnerSettings

__all__ = ["OpenSsh", "Step", "complaint"]


class Step(StrEnum):
    """The way to a server on another machine, in the order in which it is gone."""

    RESOLVE = "resolve"
    CONNECT = "connect"
    HOST_KEY = "host key"
    AUTH = "auth"
    SHELL = "shell"
    ENGINE = "engine"
    MODEL_FILE = "model file"
    FORWARD = "forward"


#: What ssh says, in lower case, and at which step it fails. Source: OpenSSH 9.2 and 10.0.
_COMPLAINTS: tuple[tuple[str, Step], ...] = (
    ("could not resolve hostname", Step.RESOLVE),
    ("name or service not known", Step.RESOLVE),
    ("remote host identification has changed", Step.HOST_KEY),
    ("host key verification failed", Step.HOST_KEY),
    ("host key is known for", Step.HOST_KEY),
    ("permission denied", Step.AUTH),
    ("too many authentication failures", Step.AUTH),
    ("no supported authentication methods", Step.AUTH),
    ("connection refused", Step.CONNECT),
    ("timed out", Step.CONNECT),
    ("no route to host", Step.CONNECT),
    ("network is unreachable", Step.CONNECT),
    ("connection closed", Step.CONNECT),
    ("connection reset", Step.CONNECT),
    ("kex_exchange_identification", Step.CONNECT),
)


@attrs.frozen
class OpenSsh:
    """Builds the command lines to one host. Nothing secret is in any of them."""

    program: str
    host: str
    config: str | None
    connect_timeout_s: float

    @classmethod
    def found(cls, settings: SshRunnerSettings) -> OpenSsh:
        """Return the ssh on ``PATH``, set to reach the host of ``settings``.

        Raises:
            NodeUnreachable: there is none.
        """
        program = shutil.which("ssh")
        if program is None:
            fix = "install OpenSSH's client"
            raise NodeUnreachable(settings.host, Step.CONNECT, "there is no ssh on PATH", fix)
        config = settings.ssh_config
        return cls(
            program,
            settings.host,
            str(Path(config).expanduser().absolute()) if config else None,
            settings.connect_timeout_s,
        )

    def master(self, control: Path) -> list[str]:
        """Return the command that connects, and lives as long as its standard input is open.

        It says back what it is told, so that a connection proves itself.
        """
        options = {
            "ControlMaster": "yes",
            "ControlPersist": "no",
            "ClearAllForwardings": "yes",
            "StreamLocalBindUnlink": "yes",
            # Two of these unanswered, and the next is not sent: after 9 s of silence, the line
            # is taken for dead. Source: client_loop.c of OpenSSH 9.2.
            "ServerAliveInterval": "3",
            "ServerAliveCountMax": "2",
            "ConnectTimeout": str(max(1, round(self.connect_timeout_s))),
        }
        return [*self._common(control, options), "--", self.host, "exec cat"]

    def session(self, control: Path) -> list[str]:
        """Return the command that runs a far ``sh`` over the master's connection."""
        # Without the master it fails, instead of connecting by itself.
        options = {"ControlMaster": "no", "ProxyCommand": "false"}
        return [*self._common(control, options), "--", self.host, "exec sh"]

    def forward(self, control: Path, socket: Path, port: int) -> list[str]:
        """Return the command that lets ``socket`` lead to ``port`` of the far loopback."""
        way = ["-O", "forward", "-L", f"{socket}:127.0.0.1:{port}"]
        return [*self._common(control, {}), *way, "--", self.host]

    def cancel(self, control: Path, socket: Path, port: int) -> list[str]:
        """Return the command that undoes ``forward``."""
        way = ["-O", "cancel", "-L", f"{socket}:127.0.0.1:{port}"]
        return [*self._common(control, {}), *way, "--", self.host]

    def _common(self, control: Path, options: dict[str, str]) -> list[str]:
        options = {
            # Nobody is there to be asked, and nobody is trusted unseen.
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            # What a user's configuration may say for sessions of his own.
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "PermitLocalCommand": "no",
            "RemoteCommand": "none",
            "RequestTTY": "no",
            "LogLevel": "ERROR",
            **options,
        }
        settings = [word for name in options for word in ("-o", f"{name}={options[name]}")]
        file = ["-F", self.config] if self.config else []
        # ssh expands % in the path of a control socket.
        return [self.program, *file, *settings, "-S", str(control).replace("%", "%%")]


def complaint(host: str, said: str, *, otherwise: Step = Step.SHELL) -> NodeUnreachable:
    """Return the error that ssh's own words amount to."""
    lowered = said.lower()
    step = next((step for words, step in _COMPLAINTS if words in lowered), otherwise)
    lines = [line.strip() for line in said.splitlines() if line.strip(" @\r")]
    telling = [
        line for line in lines if any(words in line.lower() for words, _ in _COMPLAINTS)
    ] or lines[-1:]
    reason = telling[0].rstrip(".") if telling else "ssh ended without a word"
    return NodeUnreachable(host, step, reason, _fix(host, step))


def _fix(host: str, step: Step) -> str:
    return {
        Step.RESOLVE: f"name the machine in ~/.ssh/config (Host {host}), or correct `host`",
        Step.CONNECT: f"is it on, and does `ssh {host}` reach it from here?",
        Step.HOST_KEY: f"run `ssh {host}` once and compare the fingerprint that it shows",
        Step.AUTH: f"let `ssh -o BatchMode=yes {host} true` work: ssh-copy-id {host}, or ssh-add",
    }.get(step, f"try `ssh {host} 'exec sh'`")
