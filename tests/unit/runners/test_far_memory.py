"""What the commands of another machine say of processes becomes its servers' memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglib.domain.ids import new_server_id
from gglib.domain.server_memory import ServerMemory
from gglib_adapters.runners import ssh
from gglib_adapters.runners.ssh.far_memory import memory_in

FOLDER = Path(ssh.__file__).parent
SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"]}
KIB, MIB = 2**10, 2**20
#: A server that has 30 MiB of its own, shares them with a child, and says when it has them.
SERVER = (
    "import os, time\nkept = b'x' * (30 << 20)\n"
    "if os.fork() == 0: time.sleep(60)\nprint('up', flush=True)\ntime.sleep(60)\n"
)


def test_servers_are_told_with_what_they_have_of_gpus() -> None:
    """By process; what other programs have there, and GPUs that are hidden, are nobody's."""
    said = (
        "server A 500 400 7 8\nserver B 90 100 9\n"
        "app 7, GPU-aaaa, 1000\napp 8, GPU-aaaa, 24\napp 8, GPU-bbbb, 5\n"
        "app 9, GPU-cccc, 77\napp 6, GPU-aaaa, 99\napp 9, GPU-aaaa, [N/A]\n"
    )
    assert memory_in(said, {"GPU-aaaa": "cuda0", "GPU-bbbb": "cuda1"}) == {
        "A": (
            7,
            ServerMemory(
                resident_bytes=500 * KIB,
                own_bytes=400 * KIB,
                accelerators={"cuda0": 1024 * MIB, "cuda1": 5 * MIB},
            ),
        ),
        "B": (9, ServerMemory(resident_bytes=90 * KIB, own_bytes=90 * KIB)),
    }


@given(st.text(alphabet="server app GPU-a 0123456789,\n[]/-"))
def test_whatever_is_said_makes_memory_or_none(said: str) -> None:
    """A machine says what it likes."""
    assert memory_in("server A 5 4 7\n\n" + said, {"GPU-a": "cuda0"})["A"][0] is not None


@pytest.mark.parametrize("shell", list(SHELLS))
def test_every_shell_tells_what_a_servers_processes_have(shell: str, tmp_path: Path) -> None:
    """What a child shares with it counts once; the driver is asked whose its memory is."""
    program = shutil.which(SHELLS[shell][0])
    if program is None:
        pytest.skip(f"{shell} is not installed")
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\necho "5, GPU-aaaa, 10 $2"\n')
    tool.chmod(0o755)
    server_id = new_server_id()
    script = f"""PATH={tmp_path}:$PATH
        gglib_hello {tmp_path / "far"} site
        gglib_memory
        gglib_begin {server_id} nonce 23989 '{{}}' / 0 0 {sys.executable} -I -S -c "{SERVER}"
        until [ -s "$GGLIB_SITE/{server_id}/log" ]; do :; done
        gglib_memory
        gglib_identify "$GGLIB_SITE/{server_id}"
        gglib_resident "$pid"
        echo "alone $resident $own"
        gglib_stop {server_id} "$pid" 0 stop
        while [ "$(gglib_ended {server_id})" = going ]; do :; done
        gglib_memory
    """
    done = subprocess.run(
        [program, *SHELLS[shell][1:]],
        input=(FOLDER / "far.sh").read_text() + (FOLDER / "far_machine.sh").read_text() + script,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    _, started, told, app, alone, ending = done.stdout.splitlines()
    assert (started.split()[0], ending) == ("started", "ending")
    pid = int(started.split()[1])
    found_pid, memory = memory_in(told, {})[server_id]
    assert found_pid == pid
    assert len(told.split()) == 6, "it and its child"
    resident, own = (int(each) * KIB for each in alone.split()[1:])
    assert own > 30 * MIB
    assert resident <= memory.resident_bytes < resident + 25 * MIB
    assert own <= memory.own_bytes < own + 25 * MIB
    assert app == "app 5, GPU-aaaa, 10 --query-compute-apps=pid,gpu_uuid,used_memory"[: len(app)]
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
