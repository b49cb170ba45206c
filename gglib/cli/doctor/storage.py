"""The data directory, the disks, and what was left unfinished on them."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from gglib.cli.doctor.findings import BROKEN, OK, WARNING, Finding
from gglib.cli.output import size
from gglib.errors import GglibError

if TYPE_CHECKING:
    from gglib.bootstrap import Composition

__all__ = ["data_directory_findings", "look_at_disks", "look_at_leftovers"]

#: With less, logs and databases soon fail; with a little more, no model can be fetched.
_MIN_BYTES, _FEW_BYTES = 100 << 20, 2 << 30
#: What other users must not read, and gglib makes so.
_SECRET = ("gglib.db", "gateway.json", "logs")
_MAX_FILES = 100_000
_MAX_TOLD = 10


def data_directory_findings(path: Path) -> list[Finding]:
    """Return whether it can be used, and by whom else."""
    subject = "data directory"
    if not os.access(path, os.W_OK | os.X_OK):
        fix = "choose one with --data-dir"
        return [Finding(subject, BROKEN, f"{path} cannot be written", fix)]
    found = path.stat()
    quoted = shlex.quote(str(path))
    findings = []
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        detail = f"{path} is another user's (uid {found.st_uid})"
        fix = f"chown -R {os.geteuid()} {quoted}, or choose another with --data-dir"
        findings.append(Finding(subject, WARNING, detail, fix))
    if stat.S_IMODE(found.st_mode) & 0o077 and os.name == "posix":
        detail = f"{path} is open to other users"
        findings.append(Finding(subject, WARNING, detail, f"chmod 700 {quoted}"))
        findings += [
            Finding(subject, WARNING, f"{each} can be read by others", f"chmod go= {each}")
            for each in (path / name for name in _SECRET)
            if _open_to_others(each)
        ]
    return findings or [Finding(subject, OK, str(path))]


def _open_to_others(path: Path) -> bool:
    try:
        return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)
    except OSError:
        return False


async def look_at_disks(parts: Composition) -> list[Finding]:
    """Return how much room there is for the data directory and beside the models."""
    folders = [parts.settings.data_dir, *await _model_folders(parts)]
    return await anyio.to_thread.run_sync(_disks, folders)


def _disks(folders: Iterable[Path]) -> list[Finding]:
    findings, seen = [], set()
    for folder in folders:
        with suppress(OSError):
            disk = folder.stat().st_dev
            if disk not in seen:
                seen.add(disk)
                findings.append(_disk(folder))
    return findings


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    detail = f"{size(free)} free for {folder}"
    if free < _MIN_BYTES:
        return Finding("disk", BROKEN, detail, "free some space, or use another --data-dir")
    if _no_files_left(folder):
        detail = f"no more files can be made for {folder}, though there are bytes free"
        return Finding("disk", BROKEN, detail, "delete files: df -i shows where they are")
    if free < _FEW_BYTES:
        return Finding("disk", WARNING, detail, "free some space: models and engines need more")
    return Finding("disk", OK, detail)


def _no_files_left(folder: Path) -> bool:
    if not hasattr(os, "statvfs"):
        return False
    found = os.statvfs(folder)
    return found.f_files > 0 and found.f_favail == 0


async def look_at_leftovers(parts: Composition) -> list[Finding]:
    """Return downloads that were not ended, and what killed installations have left."""
    data_dir, beside = parts.settings.data_dir, await _model_folders(parts)
    found = await anyio.to_thread.run_sync(lambda: [*_partials(data_dir, beside), *_made(data_dir)])
    if len(found) > _MAX_TOLD:
        more = len(found) - _MAX_TOLD
        found = [*found[:_MAX_TOLD], Finding("leftovers", WARNING, f"and {more} more")]
    return found or [Finding("leftovers", OK, "no unfinished downloads")]


async def _model_folders(parts: Composition) -> list[Path]:
    try:
        models = await (await parts.models()).list()
    except GglibError:
        return []
    return list(dict.fromkeys(model.path.parent for model in models))


def _partials(data_dir: Path, folders: Iterable[Path]) -> Iterator[Finding]:
    told = set()
    everything = islice(_walk(data_dir), _MAX_FILES)
    beside = (path for folder in folders for path in islice(_entries(folder), _MAX_FILES))
    for path in (*everything, *beside):
        if path.suffix != ".partial" or path in told or path.parent.name == "backups":
            continue
        told.add(path)
        with suppress(OSError):
            detail = f"{path} is an unfinished download ({size(path.stat().st_size)})"
            fix = f"fetch it again, it goes on from there; or rm {shlex.quote(str(path))}"
            yield Finding("leftovers", WARNING, detail, fix)


def _made(data_dir: Path) -> Iterator[Finding]:
    for engine in _entries(data_dir / "engines"):
        for path in _entries(engine):
            if path.name.startswith(".new-") and path.is_dir():
                fix = f"rm -r {shlex.quote(str(path))}, or install an engine, which clears it away"
                detail = f"{path} is left of an installation, or one is under way"
                yield Finding("leftovers", WARNING, detail, fix)


def _walk(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        yield from (Path(root) / name for name in names)


def _entries(folder: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from sorted(folder.iterdir())
