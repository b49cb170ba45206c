"""What goes wrong here while a connection is made ends that attempt, and nothing else."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import anyio
import psutil
import pytest

from gglib.bootstrap import SystemClock
from gglib.errors import NodeUnreachable
from gglib_adapters.runners.ssh.far_shell import Answer, FarShell
from gglib_adapters.runners.ssh.forwards import Forwards
from gglib_adapters.runners.ssh.link import Link
from gglib_adapters.runners.ssh.openssh import OpenSsh
from gglib_adapters.runners.ssh.processes import LastWords, running
from gglib_adapters.runners.ssh.settings import SshRunnerSettings

#: Runs here what ssh is to run there: its last word.
SSH = '#!/bin/sh\nfor word; do :; done\nexec sh -c "$word"\n'
REFUSED = "this machine refuses: Too many open files"
BROKEN = "gglib failed: RuntimeError: a mistake"


def failing(error: Exception) -> Callable[..., NoReturn]:
    """Return what fails."""

    def fail(*_arguments: object, **_options: object) -> NoReturn:
        raise error

    return fail


def no_descriptor() -> OSError:
    """Return what the kernel says to who has opened too much."""
    return OSError(errno.EMFILE, os.strerror(errno.EMFILE))


async def nothing() -> None:
    """Do nothing on return."""


@pytest.fixture(autouse=True)
def ssh_to_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every machine be this one."""
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(SSH)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


@asynccontextmanager
async def connected(folder: Path) -> AsyncIterator[Link]:
    """Give a connection that is made when it is asked for."""
    link = Link(
        SshRunnerSettings(host="box", data_dir=str(folder / "far")),
        folder=folder,
        site="site",
        clock=SystemClock(),
        on_return=nothing,
        has_work=lambda: False,
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(link.run)
        with anyio.fail_after(10):
            yield link
        tasks.cancel_scope.cancel()


async def refusal(link: Link) -> NodeUnreachable:
    """Return why it cannot be connected."""
    with pytest.raises(NodeUnreachable) as caught:
        await link.machine()
    return caught.value


@pytest.mark.parametrize(
    ("error", "reason"), [(no_descriptor(), REFUSED), (RuntimeError("a mistake"), BROKEN)]
)
@pytest.mark.parametrize(
    ("owner", "name"), [(anyio, "open_process"), (FarShell, "teach"), (LastWords, "listen")]
)
async def test_attempt_that_breaks_off_is_told_and_the_next_one_succeeds(
    owner: object,
    name: str,
    error: Exception,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether this machine refuses something or gglib is wrong, and in whichever of its tasks."""

    async def fail(*_arguments: object, **_options: object) -> None:
        raise error

    async with connected(tmp_path) as link:
        with monkeypatch.context() as broken:
            broken.setattr(owner, name, fail)
            assert (await refusal(link)).reason == reason
        while not link.is_up:
            link.wake()
            await anyio.sleep(0.01)


@pytest.mark.parametrize(
    "said", ["ready  BOOT:1:2:3:4 /home", "ready 0 BOOT:1:2:3:4 /home", "ready 100", ""]
)
async def test_greeting_that_makes_no_sense_is_shown(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a machine that lacks what far.sh calls."""

    async def answer(*_arguments: object, **_options: object) -> Answer:
        return Answer(said.encode())

    monkeypatch.setattr(FarShell, "ask", answer)
    async with connected(tmp_path) as link:
        error = await refusal(link)
    assert (error.step, error.reason) == ("shell", f"its sh said {said!r}")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOSYS])
async def test_command_ends_though_the_kernel_gives_no_descriptor_of_it(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many are open, or the kernel has none of that kind."""
    async with running(["sleep", "60"]) as process:
        monkeypatch.setattr(os, "pidfd_open", failing(OSError(number, os.strerror(number))))
    assert process.returncode is not None
    assert not psutil.pid_exists(process.pid)


async def test_command_is_closed_whatever_its_end_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """It hears that nobody speaks to it any more."""
    with pytest.raises(RuntimeError):
        async with running(["cat"]) as process:
            monkeypatch.setattr(os, "pidfd_open", failing(RuntimeError("a mistake")))
    assert process.returncode is not None


async def test_socket_that_cannot_be_tried_is_left_to_who_may_answer_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another gglib may hold it; health tries again."""
    forwards = Forwards(tmp_path)
    await forwards.add("server", 8080)
    path = forwards.path_of("server")
    path.touch()
    ssh = OpenSsh.found(SshRunnerSettings(host="box"))
    monkeypatch.setattr(socket, "socket", failing(no_descriptor()))
    await forwards.open(ssh, tmp_path / "control")
    assert path.exists()
