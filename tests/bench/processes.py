"""Processes of a benchmark: started for a block, awaited, and watched from outside."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

__all__ = ["BenchFailed", "cpu_s", "free_port", "peak_rss", "process", "rss", "wait_for_port"]


class BenchFailed(Exception):
    """A part of the benchmark did not do what it is for."""


def free_port() -> int:
    """Return a port nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def process(command: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command for the block.

    In a session of its own, as services have: Linux shares the cores among sessions, and an
    engine that gglib has started would otherwise be the only one to wake from another's.
    """
    child = subprocess.Popen(command, start_new_session=True, **options)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def wait_for_port(port: int, child: subprocess.Popen[bytes], *, timeout_s: float = 30) -> None:
    """Return when somebody listens.

    Raises:
        BenchFailed: nobody does in time, or the child that should has ended.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and child.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    what = "has ended" if child.poll() is not None else f"does not listen on port {port}"
    raise BenchFailed(f"{child.args!r} {what}")


def cpu_s(processes: list[psutil.Process]) -> float:
    """Return the CPU seconds that processes have used, the kernel's on their behalf too."""
    return sum(sum(each.cpu_times()[:2]) for each in processes)


def rss(processes: list[psutil.Process]) -> int:
    """Return the bytes of memory that processes hold."""
    return sum(int(each.memory_info().rss) for each in processes)


@contextlib.contextmanager
def peak_rss(processes: list[psutil.Process]) -> Iterator[list[int]]:
    """Yield a list that holds, after the block, the most bytes that processes held in it."""
    for each in processes:
        Path(f"/proc/{each.pid}/clear_refs").write_text("5")
    found: list[int] = []
    yield found
    peaks = (Path(f"/proc/{each.pid}/status").read_text() for each in processes)
    found.append(sum(int(text.split("VmHWM:")[1].split()[0]) * 1024 for text in peaks))
