"""The memory limits that Linux's control groups put on this process and its children.

Source: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of Linux 6.12;
proc_pid_mountinfo(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import attrs

__all__ = ["GroupLimit", "group_limits", "read_text"]

#: What version 1 says for "no limit" is the largest page-aligned number.
_NO_LIMIT = 1 << 62

#: What the kernel gives back when a group reaches its limit: pages that files back. Those in use
#: count too, as in MemAvailable: a model's weights stay there after its server has ended.
_RECLAIMABLE = ("inactive_file", "active_file")

_ESCAPE = re.compile(r"\\([0-7]{3})")


@attrs.frozen(kw_only=True)
class GroupLimit:
    """One group's limit. Sizes in bytes; what the kernel would give back is not used."""

    group: str
    limit_bytes: int
    used_bytes: int

    @property
    def free_bytes(self) -> int:
        """How much more the group may take."""
        return max(0, self.limit_bytes - self.used_bytes)


@attrs.frozen(kw_only=True)
class _Hierarchy:
    """A mounted tree of groups, and this process's place in it."""

    mount: Path
    place: PurePosixPath
    unified: bool

    def folders(self) -> Iterator[Path]:
        """Yield this process's group and those around it, as far as can be seen."""
        folder = self.mount.joinpath(*self.place.parts[1:])
        # Of another namespace, or gone: what is mounted is what holds here.
        if ".." in self.place.parts or not folder.is_dir():
            folder = self.mount
        yield folder
        while folder != self.mount:
            folder = folder.parent
            yield folder


def group_limits(root: Path) -> list[GroupLimit]:
    """Return the memory limits on this process, its own group's first; none: there are none.

    ``root`` is where the file system begins: ``/``. Both versions count, side by side too.
    What cannot be read limits nothing.
    """
    found = []
    for hierarchy in _hierarchies(root):
        read = _read_unified if hierarchy.unified else _read_version_1
        for folder in hierarchy.folders():
            name = "/" + folder.relative_to(hierarchy.mount).as_posix().removeprefix(".")
            limit = read(folder, name)
            if limit is not None:
                found.append(limit)
    return found


def read_text(path: Path) -> str:
    """Return a small file's text; empty if it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except (OSError, ValueError):
        return ""


def _hierarchies(root: Path) -> Iterator[_Hierarchy]:
    places: dict[bool, PurePosixPath] = {}
    for line in read_text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, place = rest.partition(":")
        if number == "0" and not controllers:
            places[True] = PurePosixPath(place)
        elif "memory" in controllers.split(","):
            places[False] = PurePosixPath(place)
    for line in read_text(root / "proc/self/mountinfo").splitlines():
        head, _, tail = line.partition(" - ")
        fields, kind = head.split(), tail.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        unified = kind[0] == "cgroup2"
        if unified not in places or not (unified or "memory" in kind[2].split(",")):
            continue
        mount = root / _unescaped(fields[4]).lstrip("/")
        below = _below(places[unified], PurePosixPath(_unescaped(fields[3])))
        yield _Hierarchy(mount=mount, place=below, unified=unified)


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def _below(place: PurePosixPath, mounted: PurePosixPath) -> PurePosixPath:
    """Return ``place`` as it is seen where the group ``mounted`` is the root."""
    try:
        return PurePosixPath("/") / place.relative_to(mounted)
    except ValueError:
        return place


def _read_unified(folder: Path, name: str) -> GroupLimit | None:
    # Above memory.high a group is throttled and reclaimed from: no place for a model either.
    limits = [_number(folder / file) for file in ("memory.max", "memory.high")]
    known = [limit for limit in limits if limit is not None]
    if not known:
        return None
    used = _used(folder / "memory.current", folder / "memory.stat")
    return GroupLimit(group=name, limit_bytes=min(known), used_bytes=used)


def _read_version_1(folder: Path, name: str) -> GroupLimit | None:
    limit = _number(folder / "memory.limit_in_bytes")
    if limit is None:
        return None
    used = _used(folder / "memory.usage_in_bytes", folder / "memory.stat", "total_")
    return GroupLimit(group=name, limit_bytes=limit, used_bytes=used)


def _used(current: Path, statistics: Path, prefix: str = "") -> int:
    """Return what is used, without what the kernel would give back."""
    used = _number(current) or 0
    reclaimable = [prefix + name for name in _RECLAIMABLE]
    for line in read_text(statistics).splitlines():
        key, _, value = line.partition(" ")
        if key in reclaimable and value.isdecimal():
            used -= int(value)
    return max(0, used)


def _number(path: Path) -> int | None:
    """Return the number of bytes in a file; ``None`` for no limit, or no such file."""
    text = read_text(path).strip()
    if not text.isascii() or not text.isdecimal() or len(text) > 20:
        return None
    value = int(text)
    return value if value < _NO_LIMIT else None
