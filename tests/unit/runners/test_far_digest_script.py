"""SHA-256 is computed on the far machine in every sh, with whichever tool is there."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from support.far_machine import readers_of

from gglib_adapters.runners import ssh

FOLDER = Path(ssh.__file__).parent
SCRIPT = "".join((FOLDER / name).read_text() for name in ("far.sh", "far_digest.sh"))
SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"]}
#: What the script calls beside the tool that computes.
TOOLS = ("env", "find", "getconf", "mkdir", "mv", "rm", "sed", "sleep", "touch")
FILES = {"text": b"what lies there\n" * 5000, "nothing": b""}
LARGE_BYTES = 2**40


def run_script(shell: str, folder: Path, session: str, *tools: str) -> list[str]:
    """Have a shell that finds only these programs run the script; return what it prints."""
    program = shutil.which(SHELLS[shell][0])
    if program is None:
        pytest.skip(f"{shell} is not installed")
    found_by = folder / "bin"
    found_by.mkdir()
    for name in (*TOOLS, *tools):
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not installed")
        (found_by / name).symlink_to(found)
    done = subprocess.run(
        [program, *SHELLS[shell][1:]],
        input=f"{SCRIPT}\ngglib_hello {folder / 'far'} site\n{session}",
        env={"PATH": str(found_by), "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout.splitlines()[1:]


@pytest.mark.parametrize("tool", ["sha256sum", "shasum", "openssl"])
@pytest.mark.parametrize("shell", list(SHELLS))
def test_sum_is_that_of_the_file(shell: str, tool: str, tmp_path: Path) -> None:
    """Asked for twice it is computed once; nothing is left of it when it is forgotten."""
    session = ""
    for name, content in FILES.items():
        path = tmp_path / f"{name} é 'x'"
        path.write_bytes(content)
        session += f"""
            gglib_digest {name} 60 "{path}"
            gglib_digest {name} 60 "{path}"
            while gglib_digest_state {name} "$$" > {tmp_path}/said; do
              read -r word _ < {tmp_path}/said
              [ "$word" = going ] || break
            done
            gglib_digest_state {name} again
            gglib_forget_digest {name}
            gglib_digest_state {name} late
        """
    said = run_script(shell, tmp_path, session, tool)
    for content in FILES.values():
        first, second, ended, late, *said = said
        assert (first, second, late) == ("going", "going", "unknown")
        assert ended.startswith("ended 0 ")
        assert re.findall("[0-9a-f]{64}", ended) == [hashlib.sha256(content).hexdigest()]
    assert not list((tmp_path / "far" / "digests").glob("*/*"))


def test_machine_without_a_tool_says_so(tmp_path: Path) -> None:
    """And nothing is begun."""
    assert run_script("dash", tmp_path, "gglib_digest key 60 /etc/hostname") == ["no-tool"]
    assert not (tmp_path / "far" / "digests").exists()


def test_file_that_cannot_be_read_ends_with_a_status(tmp_path: Path) -> None:
    """One that is gone since it was looked at."""
    session = """
        gglib_digest key 60 /nowhere
        until [ -e "$GGLIB_DATA/digests/$GGLIB_BOOT/key/status" ]; do :; done
        gglib_digest_state key word
        gglib_forget_digest key
    """
    first, ended = run_script("dash", tmp_path, session, "sha256sum")
    assert (first, ended.split()[0]) == ("going", "ended")
    assert ended.split()[1] != "0"


@pytest.mark.parametrize("shell", list(SHELLS))
def test_forgotten_reading_ends_at_once(shell: str, tmp_path: Path) -> None:
    """How far it had come was told."""
    large = tmp_path / "large"
    large.touch()
    with large.open("r+b") as file:
        file.truncate(LARGE_BYTES)
    session = f"""
        gglib_digest key 60 {large}
        at=0
        until [ "$at" -gt 1000000 ]; do
          gglib_digest_state key "$$" > {tmp_path}/said
          read -r _ at < {tmp_path}/said
        done
        read -r child born < "$GGLIB_DATA/digests/$GGLIB_BOOT/key/by"
        gglib_forget_digest key
        naps=100 # of 20 ms: who minds it would look after 5 s
        while gglib_lives "$child" "$born" && [ "$naps" -gt 0 ]; do
          naps=$((naps - 1))
          sleep 0.02
        done
        gglib_lives "$child" "$born" || echo over
    """
    assert run_script(shell, tmp_path, session, "sha256sum") == ["going", "over"]
    assert not list((tmp_path / "far" / "digests").glob("*/*"))
    assert readers_of(large) == []


@pytest.mark.parametrize("shell", list(SHELLS))
def test_what_another_boot_left_a_day_ago_is_removed(shell: str, tmp_path: Path) -> None:
    """What is younger may be at work, on another machine that has the same home."""
    digests = tmp_path / "far" / "digests"
    for name, age_s in {"earlier boot": 90_000, "other machine": 80_000}.items():
        (digests / name / "key").mkdir(parents=True)
        os.utime(digests / name, (time.time() - age_s,) * 2)
    session = "gglib_digest key 60 /etc/hostname\ngglib_forget_digest key\n"
    assert run_script(shell, tmp_path, session, "sha256sum") == ["going"]
    assert (digests / "other machine" / "key").exists()
    assert not (digests / "earlier boot").exists()


def test_reading_that_nobody_asks_for_ends_by_itself(tmp_path: Path) -> None:
    """As when the machine that wanted it is gone; its folder goes, too."""
    large = tmp_path / "large"
    large.touch()
    with large.open("r+b") as file:
        file.truncate(LARGE_BYTES)
    session = f"""
        gglib_digest key 1 {large}
        folder=$GGLIB_DATA/digests/$GGLIB_BOOT/key
        until read -r child born < "$folder/by"; do :; done
        while gglib_lives "$child" "$born" || [ -d "$folder" ]; do sleep 0.05; done
        echo over
    """
    assert run_script("dash", tmp_path, session, "sha256sum") == ["going", "over"]
    assert readers_of(large) == []
