"""What the commands of another machine print becomes its devices, whatever they print."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglib.domain.device import Device
from gglib_adapters.runners import ssh
from gglib_adapters.runners.ssh.far_devices import devices_in

SCRIPT = Path(ssh.__file__).with_name("far_machine.sh")
SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"]}
MEMORY = "MemTotal 1000\nMemAvailable 600\n"
TWO_GPUS = (
    "gpu 0, GPU-aaaa, [N/A], 24576, 20000, NVIDIA GeForce RTX 3090\n"
    "gpu 1, GPU-bbbb, Disabled, 81920, 80000, NVIDIA A100, 80 GB\n"
)


def sizes(said: str) -> dict[str, tuple[int, int]]:
    """Return total and free bytes by name."""
    return {each.name: (each.total_bytes, each.free_bytes) for each in devices_in(said)}


def test_memory_is_what_the_tightest_group_allows() -> None:
    """Of the total and of what is free, each the smallest."""
    assert sizes(MEMORY) == {"cpu": (1000 * 1024, 600 * 1024)}
    limited = MEMORY + "limit 500000 100000\nlimit 9223372036854771712 5\nlimit 700000 650000\n"
    assert sizes(limited) == {"cpu": (500_000, 50_000)}
    assert devices_in(limited)[0].description == "limited by a control group"


def test_gpus_follow_in_their_order() -> None:
    """With their names and identifiers; sizes are told in MiB."""
    own, first, second = devices_in(MEMORY + TWO_GPUS)
    assert own.name == "cpu"
    assert (first.name, first.free_bytes) == ("cuda0", 20_000 * 2**20)
    assert second == Device(
        name="cuda1",
        kind="cuda",
        total_bytes=81_920 * 2**20,
        free_bytes=80_000 * 2**20,
        description="NVIDIA A100, 80 GB",
        identifier="GPU-bbbb",
    )


@pytest.mark.parametrize(
    ("visible", "shown"),
    [("1", ["GPU-bbbb"]), ("GPU-b,0", ["GPU-bbbb", "GPU-aaaa"]), ("", []), ("7,0", [])],
)
def test_hidden_gpus_are_not_there(visible: str, shown: list[str]) -> None:
    """``CUDA_VISIBLE_DEVICES`` of that machine holds for its engines."""
    devices = devices_in(f"{MEMORY}visible {visible}\n{TWO_GPUS}")[1:]
    assert [each.identifier for each in devices] == shown
    assert [each.name for each in devices] == [f"cuda{number}" for number in range(len(shown))]


def test_gpu_without_a_size_is_left_out_and_keeps_its_number() -> None:
    """One whose memory is not told, and one that is divided into instances."""
    lost = TWO_GPUS.replace("24576", "[Unknown Error]")
    assert list(sizes(MEMORY + lost)) == ["cpu", "cuda1"]
    divided = TWO_GPUS.replace("Disabled", "Enabled")
    assert list(sizes(MEMORY + divided)) == ["cpu", "cuda0"]


@given(st.text(alphabet="MemTotalAvailable gpu limit visible 0123456789,\n[]/-"))
def test_whatever_is_said_makes_devices_or_none(said: str) -> None:
    """A machine says what it likes; without its memory there is nothing."""
    assert devices_in(said) == () or devices_in(said)[0].name == "cpu"
    assert devices_in(MEMORY + said)[0].name == "cpu"


@pytest.mark.parametrize("shell", list(SHELLS))
def test_every_shell_tells_this_machines_memory_and_files(shell: str, tmp_path: Path) -> None:
    """With a GPU's tool that hangs on nothing, and a folder with a name to trip over."""
    program = shutil.which(SHELLS[shell][0])
    if program is None:
        pytest.skip(f"{shell} is not installed")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, GPU-aaaa, [N/A], 24576, 20000, NVIDIA'\n")
    tool.chmod(0o755)
    folder = tmp_path / "a b'c"
    folder.mkdir()
    (folder / "m.GgUf").write_bytes(b"x" * 70_000 + b"end")
    done = subprocess.run(
        [program, *SHELLS[shell][1:]],
        input=f"""PATH={tmp_path}:$PATH
            . {SCRIPT}
            gglib_devices
            echo ---
            cd /
            HOME={tmp_path}
            gglib_models "~/a b'c" 10
            gglib_marks "~/a b'c/m.GgUf" /etc /nowhere
            gglib_piece "$HOME/a b'c/m.GgUf" 1 16 | tail -c 3
            gglib_heads /nowhere "$HOME/a b'c/m.GgUf" | tail -c 4097 | head -c 3 | od -An -c
        """,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    told, _, files = done.stdout.partition("---\n")
    own, gpu = devices_in(told)
    assert own.total_bytes <= psutil.virtual_memory().total
    assert own.free_bytes > 0
    assert gpu.description == "NVIDIA"
    lines = files.splitlines()
    assert lines[0] == f"folder {folder}"
    assert lines[1].startswith("file 70003 ")
    assert lines[1].endswith(f" {folder}/m.GgUf")
    assert lines[2].split(" ", 2)[2] == f"{folder}/m.GgUf"
    assert lines[3:5] == ["directory", "missing"]
    assert lines[5].startswith("end")
    assert lines[5].removeprefix("end").split() == ["\\0", "x", "x"]


@pytest.mark.parametrize("shell", list(SHELLS))
def test_every_limit_of_a_control_group_is_told_less_what_the_kernel_gives_back(
    shell: str, tmp_path: Path
) -> None:
    """Of either version; what has no limit, and what is not there, limits nothing."""
    program = shutil.which(SHELLS[shell][0])
    if program is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.high").write_text("max\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.limit_in_bytes").write_text("7000\n")
    (tmp_path / "memory.stat").write_text(
        "anon 1\ninactive_file 200\nactive_file 100\ntotal_active_file 30\n"
    )
    done = subprocess.run(
        [program, *SHELLS[shell][1:]],
        input=f"""exec 2> /dev/null
            . {SCRIPT}
            gglib_limits {tmp_path} memory.current '' memory.max memory.high
            gglib_limits {tmp_path} memory.current total_ memory.limit_in_bytes
            gglib_limits {tmp_path}/none memory.current '' memory.max
            echo end
        """,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.splitlines() == ["limit 5000 600", "limit 7000 870", "end"]
