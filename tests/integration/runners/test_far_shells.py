"""What runs on the far machine works in every sh, with setsid and without."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gglib.domain.ids import new_server_id
from gglib_adapters.runners import ssh

SCRIPT = Path(ssh.__file__).with_name("far.sh")
SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"]}
#: What the script calls, but for setsid.
TOOLS = {
    *("cat", "dd", "env", "getconf", "grep", "ls", "mkdir", "mv", "printf", "rm", "sed", "sh"),
    *("sleep", "tail", "touch", "tr", "wc"),
}

#: Another in every process that runs these tests: servers are found by it.
ID = new_server_id()
#: A server that has a deaf child in its session, and one in another.
SERVER = (
    "import os, signal, time\nprint('up', flush=True)\n"
    "if os.fork() == 0:\n"
    "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "    if os.fork() == 0: os.setsid()\n"
    "time.sleep(60)\n"
)


def run_script(shell: str, folder: Path, tools: set[str], session: str) -> list[str]:
    """Have a shell that finds only these programs run the script; return what it prints."""
    program = shutil.which(SHELLS[shell][0])
    if program is None:
        pytest.skip(f"{shell} is not installed")
    found_by = folder / "bin"
    found_by.mkdir()
    for name in tools:
        found = shutil.which(name)
        assert found is not None, name
        (found_by / name).symlink_to(found)
    done = subprocess.run(
        [program, *SHELLS[shell][1:]],
        input=SCRIPT.read_text() + session,
        env={"PATH": str(found_by), "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("has_setsid", [True, False], ids=["setsid", "no setsid"])
@pytest.mark.parametrize("shell", list(SHELLS))
def test_server_is_started_once_listed_and_ended_with_all_that_it_started(
    shell: str, has_setsid: bool, tmp_path: Path
) -> None:
    """Asked twice with one nonce, it is one server; nothing of it is left."""
    start = shlex.join(
        [
            *("gglib_begin", ID, "nonce", "23987", '{"a": "b c"}', "/", "0"),
            *("1", f"GGLIB_SERVER_ID={ID}", sys.executable, "-I", "-S", "-c", SERVER),
        ]
    )
    session = f"""
        gglib_hello {tmp_path / "far"} site ''
        {start}
        {start}
        gglib_free_port 23987
        gglib_identify "$GGLIB_SITE/{ID}"
        until gglib_family {ID} "$pid" "$born" && set -- $family && [ $# = 3 ]; do :; done
        gglib_list
        gglib_identify "$GGLIB_SITE/{ID}"
        gglib_stat "$pid" && [ "$group" = "$pid" ] && echo yes || echo no
        gglib_family {ID} "$pid" "$born"
        echo family $family
        gglib_stop {ID} 1 200 other
        gglib_stop {ID} "$pid" 200 this
        gglib_stop {ID} "$pid" 200 this
        while [ "$(gglib_ended {ID})" = going ]; do sleep 0.01; done
        gglib_ended {ID}
        gglib_read {ID} log 0
        gglib_forget {ID}
        gglib_state {ID}
    """
    said = run_script(shell, tmp_path, TOOLS | {"setsid"} if has_setsid else TOOLS, session)
    ticks = os.sysconf("SC_CLK_TCK")
    assert re.fullmatch(rf"ready {ticks} [-0-9a-f]+(:\d+){{4}} {tmp_path / 'far'}", said[0])
    assert said[1].startswith("started ")
    assert said[2] == said[1]
    assert said[3] == "23988"
    assert said[4] == f"{ID} running {said[1].removeprefix('started ')}"
    assert said[5] == '{"a": "b c"}'
    # Without setsid and a terminal, only bash gives it a group; its family is found all the same.
    assert said[6] == ("yes" if has_setsid or shell == "bash" else "no")
    assert len(said[7].split()) == 4, "the server and its two children"
    assert said[8:12] == ["not-running", "ending", "ending", "gone"]
    assert said[12].startswith("ended ")
    assert said[12].endswith(" 143"), "it was asked first"
    assert said[13:] == ["3 0", "up", "unknown"]


@pytest.mark.parametrize("shell", list(SHELLS))
def test_machine_without_getconf_counts_in_hundredths(shell: str, tmp_path: Path) -> None:
    """As a small busybox: the kernel has no other clock for programs."""
    said = run_script(shell, tmp_path, TOOLS - {"getconf"}, f"gglib_hello {tmp_path} site ''\n")
    assert re.fullmatch(rf"ready 100 [-0-9a-f]+(:\d+){{4}} {tmp_path}", said[0])
