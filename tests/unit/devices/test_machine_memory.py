"""The machine's memory, read from trees of files such as Linux has."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglib_adapters.devices.control_groups import group_limits
from gglib_adapters.devices.machine_memory import machine_memory

GIB = 2**30
NEVER = (1 << 63) - 4096
UNIFIED = "36 31 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
VERSION_1 = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"


def write(root: Path, files: dict[str, object]) -> Path:
    """Write files below ``root``."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def machine(root: Path, total: int = 16 * GIB, free: int = 12 * GIB) -> Path:
    """Write what the kernel says of a machine without control groups."""
    meminfo = f"MemTotal: {total // 1024} kB\nMemFree: 1 kB\nMemAvailable: {free // 1024} kB"
    return write(root, {"proc/meminfo": meminfo})


def unified(
    root: Path, place: str, groups: dict[str, dict[str, object]], mount: str = UNIFIED
) -> Path:
    """Add a version 2 hierarchy to a machine."""
    files: dict[str, object] = {"proc/self/cgroup": f"0::{place}", "proc/self/mountinfo": mount}
    for group, values in groups.items():
        files |= {f"sys/fs/cgroup{group}/{name}": value for name, value in values.items()}
    return write(root, files)


def sizes(root: Path) -> tuple[int, int]:
    """Return total and free bytes."""
    device = machine_memory(root)
    return device.total_bytes, device.free_bytes


def test_machine_without_groups_has_what_the_kernel_says(tmp_path: Path) -> None:
    """MemAvailable is free, not MemFree: the page cache can be had."""
    device = machine_memory(machine(tmp_path))
    assert (device.name, device.kind, device.description) == ("cpu", "cpu", "")
    assert (device.total_bytes, device.free_bytes) == (16 * GIB, 12 * GIB)


def test_machine_without_proc_has_what_psutil_says(tmp_path: Path) -> None:
    """On other systems than Linux, and where the file says nothing."""
    assert machine_memory(tmp_path, lambda: (5, 3)).total_bytes == 5
    write(tmp_path, {"proc/meminfo": "MemTotal: many kB"})
    assert machine_memory(tmp_path, lambda: (5, 7)).free_bytes == 5
    assert machine_memory(tmp_path).total_bytes > GIB // 2


def test_group_limit_is_the_total_and_what_is_left_of_it_free(tmp_path: Path) -> None:
    """Pages of files are given back, so they are free; a model's too, that was read twice."""
    group = {
        "memory.max": 4 * GIB,
        "memory.current": 3 * GIB,
        "memory.stat": f"anon 1\ninactive_file {GIB // 2}\nactive_file {GIB // 2}",
    }
    unified(machine(tmp_path), "/box", {"/box": group})
    assert sizes(tmp_path) == (4 * GIB, 2 * GIB)
    assert machine_memory(tmp_path).description == "limited by control group /box"


def test_tightest_group_around_counts(tmp_path: Path) -> None:
    """Whether it is the inner or an outer one; total and free need not be the same group's."""
    groups: dict[str, dict[str, object]] = {
        "/a": {"memory.max": 8 * GIB, "memory.current": 7 * GIB},
        "/a/b": {"memory.max": "max", "memory.high": 6 * GIB, "memory.current": GIB},
        "/a/b/c": {"memory.max": "max", "memory.high": "max", "memory.current": GIB},
    }
    unified(machine(tmp_path), "/a/b/c", groups)
    assert sizes(tmp_path) == (6 * GIB, GIB)


def test_group_that_is_over_its_limit_has_nothing_free(tmp_path: Path) -> None:
    """Not less than nothing."""
    unified(machine(tmp_path), "/", {"": {"memory.max": 4096, "memory.current": GIB}})
    assert sizes(tmp_path) == (4096, 0)


def test_kernel_has_less_than_the_group_allows(tmp_path: Path) -> None:
    """The smaller of both counts."""
    unified(machine(tmp_path), "/", {"": {"memory.max": 64 * GIB, "memory.current": 0}})
    assert sizes(tmp_path) == (16 * GIB, 12 * GIB)


@pytest.mark.parametrize(
    ("place", "mounted"),
    [
        ("/docker/abc", "/docker/abc"),
        ("/docker/abc", "/"),
        ("/../other", "/"),
        ("/docker/abc/gone", "/docker/abc"),
    ],
)
def test_container_that_sees_its_own_group_as_the_root_is_limited(
    tmp_path: Path, place: str, mounted: str
) -> None:
    """Whatever its namespace makes of the paths."""
    mount = UNIFIED.replace(" / ", f" {mounted} ", 1)
    unified(machine(tmp_path), place, {"": {"memory.max": GIB, "memory.current": 0}}, mount)
    assert sizes(tmp_path) == (GIB, GIB)


def test_version_1_limits_count_and_its_none_does_not(tmp_path: Path) -> None:
    """Its word for no limit is a number too large to be one."""
    memory = "sys/fs/cgroup/memory"
    machine(tmp_path)
    write(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/a/b\n1:name=systemd:/\n0::/",
            "proc/self/mountinfo": UNIFIED.replace("cgroup ", "cgroup/unified ", 1) + VERSION_1,
            f"{memory}/memory.limit_in_bytes": NEVER,
            f"{memory}/a/memory.limit_in_bytes": 2 * GIB,
            f"{memory}/a/memory.usage_in_bytes": GIB,
            f"{memory}/a/memory.stat": (
                f"total_inactive_file {GIB // 4}\ntotal_active_file {GIB // 4}"
            ),
            f"{memory}/a/b/memory.limit_in_bytes": NEVER,
        },
    )
    assert sizes(tmp_path) == (2 * GIB, 3 * GIB // 2)


def test_mount_point_with_a_space_is_found(tmp_path: Path) -> None:
    """The kernel writes it as an octal number."""
    machine(tmp_path)
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/",
            "proc/self/mountinfo": UNIFIED.replace("/sys/fs/cgroup", "/sys/my\\040groups"),
            "sys/my groups/memory.max": GIB,
        },
    )
    assert sizes(tmp_path) == (GIB, GIB)


@given(st.text(), st.text(), st.text())
def test_files_with_anything_in_them_raise_nothing(
    tmp_path_factory: pytest.TempPathFactory, group: str, mount: str, limit: str
) -> None:
    """What cannot be read limits nothing."""
    root = tmp_path_factory.mktemp("root")
    for name, content in (
        ("proc/meminfo", "MemTotal: 8 kB\nMemAvailable: 4 kB\n"),
        ("proc/self/cgroup", f"0::/\n{group}"),
        ("proc/self/mountinfo", f"{mount}\n{UNIFIED}"),
        ("sys/fs/cgroup/memory.max", limit),
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8", "surrogatepass"))
    device = machine_memory(root)
    assert 0 <= device.free_bytes <= device.total_bytes <= 8192


def test_this_machine_can_be_read() -> None:
    """The real files, whatever they say."""
    device = machine_memory(Path("/"))
    assert 0 < device.free_bytes <= device.total_bytes
    assert all(limit.limit_bytes >= 0 for limit in group_limits(Path("/")))
