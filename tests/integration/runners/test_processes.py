"""The kernel's view of processes, where it is not what it seems."""

from __future__ import annotations

import platform
import subprocess
import sys

import anyio
import pytest

from gglib_adapters.runners.local import processes

#: Ends its first thread alone; another one lives until standard input is closed.
_HEADLESS = """
import ctypes, os, platform, sys, threading

def rest():
    sys.stdin.read()
    os._exit(7)

threading.Thread(target=rest).start()
print("headless", flush=True)
exit_thread = {"x86_64": 60, "aarch64": 93}[platform.machine()]
ctypes.CDLL(None).syscall(exit_thread, 0)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="knows the system call of Linux on two machines",
)
async def test_process_without_its_first_thread_lives_until_the_last_one_ends() -> None:
    """The kernel calls it a zombie already; it has its memory and its sockets still."""
    command = [sys.executable, "-c", _HEADLESS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == b"headless\n"
        state = anyio.Path(f"/proc/{child.pid}/stat")
        with anyio.fail_after(10):
            while b") Z " not in await state.read_bytes():
                await anyio.lowlevel.checkpoint()

        found = processes.read(child.pid)
        assert found is not None
        assert found.alive
        assert processes.reap(child.pid) is None

        child.stdin.close()
        with anyio.fail_after(10):
            await processes.until_gone(found)
        assert processes.reap(child.pid) == 7
        child.returncode = 7
