"""The kernel's view of processes: who they are, when they end, and signals that cannot miss.

Linux reads ``/proc`` itself: a whole snapshot costs what psutil spends on a few processes.
Elsewhere psutil answers.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import cache

import anyio
import attrs
import psutil

__all__ = ["Process", "environment", "read", "reap", "send_signal", "snapshot", "until_gone"]

_LINUX = sys.platform == "linux"
_POLL_S = 0.02


@attrs.frozen
class Process:
    """One process at one moment. Identity is (pid, started_at), the latter in Unix seconds."""

    pid: int
    started_at: float
    parent: int = attrs.field(eq=False)
    group: int = attrs.field(eq=False)
    session: int = attrs.field(eq=False)
    alive: bool = attrs.field(eq=False)
    """False for a zombie: all of its threads have ended."""

    @property
    def leads_session(self) -> bool:
        """Whether it began its session, as every server of ours does."""
        return self.session == self.pid


@cache
def _boot_time() -> float:
    return psutil.boot_time()


@cache
def _ticks_per_s() -> int:
    return os.sysconf("SC_CLK_TCK")


def read(pid: int) -> Process | None:
    """Return the process with this pid, dead or alive; ``None`` when there is none."""
    if not _LINUX:
        return _read_portably(pid)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - read thousands of times
            stat = file.read()
    except OSError:
        return None
    if not stat:
        return None
    # The name, in parentheses, may itself hold spaces and parentheses.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return Process(
        pid=pid,
        started_at=_boot_time() + int(fields[19]) / _ticks_per_s(),
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        # A leader's thread may end before the others: until they have, the process holds its
        # memory and sockets, and cannot be collected.
        alive=fields[0] != b"X" and (fields[0] != b"Z" or int(fields[17]) > 1),
    )


def _read_portably(pid: int) -> Process | None:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            return Process(
                pid=pid,
                started_at=process.create_time(),
                parent=process.ppid(),
                group=os.getpgid(pid) if hasattr(os, "getpgid") else pid,
                session=os.getsid(pid) if hasattr(os, "getsid") else pid,
                alive=process.status() != psutil.STATUS_ZOMBIE,
            )
    except (psutil.Error, OSError, ValueError):
        return None


def snapshot() -> list[Process]:
    """Return every live process that can be seen. Milliseconds: for a worker thread."""
    if _LINUX:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    else:
        pids = psutil.pids()
    found = (read(pid) for pid in pids)
    return [process for process in found if process is not None and process.alive]


def environment(pid: int) -> dict[str, str] | None:
    """Return the environment a process was started with; ``None`` if it cannot be read.

    A process may have overwritten it (setproctitle does): a missing variable proves nothing.
    """
    if not _LINUX:
        try:
            return psutil.Process(pid).environ()
        except (psutil.Error, OSError):
            return None
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123 - read thousands of times
            entries = os.fsdecode(file.read()).split("\0")
    except OSError:
        return None
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def _pidfd(process: Process) -> int | None:
    """Return a descriptor of that very process, or ``None`` if it is gone.

    Raises:
        NotImplementedError: this system has none.
    """
    if not hasattr(os, "pidfd_open"):
        raise NotImplementedError
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    except OSError as error:
        raise NotImplementedError from error
    # Opened first, compared then: the pid cannot be reused behind the descriptor.
    now = read(process.pid)
    if now != process or not now.alive:
        os.close(descriptor)
        return None
    return descriptor


async def until_gone(process: Process) -> None:
    """Return when that very process is dead (a zombie is)."""
    try:
        descriptor = _pidfd(process)
    except NotImplementedError:
        while (now := read(process.pid)) == process and now.alive:  # noqa: ASYNC110 - no event here
            await anyio.sleep(_POLL_S)
        return
    if descriptor is None:
        return
    try:
        await anyio.wait_readable(descriptor)
    finally:
        os.close(descriptor)


def send_signal(process: Process, number: int) -> None:
    """Signal that very process; does nothing if it is gone."""
    try:
        descriptor = _pidfd(process)
    except NotImplementedError:
        if read(process.pid) == process:
            os.kill(process.pid, number)
        return
    if descriptor is None:
        return
    try:
        signal.pidfd_send_signal(descriptor, number)
    except (ProcessLookupError, PermissionError):
        return
    finally:
        os.close(descriptor)


def reap(pid: int) -> int | None:
    """Collect a dead child; return its status, negative for a signal.

    ``None`` if it lives, is no child of this process, or was collected already.
    """
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except (ChildProcessError, AttributeError):
        return None
    return os.waitstatus_to_exitcode(status) if found else None
