"""How much memory a process and its descendants have, shared pages counted once.

Source: proc_pid_smaps(5), proc_pid_statm(5); Linux 6.12.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import psutil

__all__ = ["tree_memory_bytes", "tree_own_memory_bytes"]

_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ (?P<device>\S+) (?P<inode>\d+)")
_FIELD = re.compile(r"(?P<name>Rss|Anonymous): +(?P<kib>\d+) kB")


def tree_memory_bytes(pid: int) -> int | None:
    """Return the resident bytes of the process ``pid`` and all its descendants.

    ``None``: there is none, it is a zombie, or it is another user's. Pages that a child has
    from its parent and nobody has written to count twice.
    """
    try:
        family = _family_of(pid)
        own = _resident(family[0])
    except (psutil.Error, OSError, ValueError, OverflowError):
        return None
    if own is None or len(family) == 1:
        return own
    return _of_family(family)


def tree_own_memory_bytes(pid: int) -> int | None:
    """Return the part of it that no file backs; ``None`` as there."""
    total, found = 0, False
    try:
        family = _family_of(pid)
    except (psutil.Error, OSError, ValueError, OverflowError):
        return None
    for process in family:
        try:
            memory = process.memory_info()
            if process.status() != psutil.STATUS_ZOMBIE:
                # Where the system does not tell what is shared, all of it counts.
                total += max(0, memory.rss - getattr(memory, "shared", 0))
                found = True
        except (psutil.Error, OSError):
            continue
    return total if found else None


def _family_of(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants, the process first."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def _resident(process: psutil.Process) -> int | None:
    """Return one process's resident bytes; ``None`` for a zombie."""
    if process.status() == psutil.STATUS_ZOMBIE:
        return None
    return int(process.memory_info().rss)


def _of_family(family: list[psutil.Process]) -> int | None:
    """Return what several processes have together; those that have gone count no more."""
    total, found = 0, False
    files: dict[tuple[str, str], int] = {}
    for process in family:
        mapped = _mapped(process.pid)
        if mapped is None:
            try:
                resident = _resident(process)
            except (psutil.Error, OSError):
                continue
            total += resident or 0
            found = found or resident is not None
            continue
        found = True
        anonymous, of_files = mapped
        total += anonymous
        for file, size_bytes in of_files.items():
            # Each has mapped a part of it, mostly the same: the largest is the file's share.
            files[file] = max(files.get(file, 0), size_bytes)
    return total + sum(files.values()) if found else None


def _mapped(pid: int) -> tuple[int, Counter[tuple[str, str]]] | None:
    """Return a process's own bytes, and those of each file; ``None`` where nothing tells."""
    try:
        lines = Path(f"/proc/{pid}/smaps").read_text(errors="replace").splitlines()
    except OSError:
        return None
    own, resident = 0, 0
    files: Counter[tuple[str, str]] = Counter()
    file: tuple[str, str] | None = None
    for line in lines:
        field = _FIELD.match(line)
        if field is None:
            mapping = _MAPPING.match(line)
            if mapping is not None:
                named = mapping["inode"] != "0"
                file = (mapping["device"], mapping["inode"]) if named else None
            continue
        size_bytes = int(field["kib"]) * 1024
        if field["name"] == "Rss":
            resident = size_bytes
        else:
            own += size_bytes
            if file is None:
                own += resident - size_bytes
            else:
                files[file] += resident - size_bytes
    return (own, files) if own or files else None
