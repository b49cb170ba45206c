"""Whether a model's files are, bit by bit, what they were."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import attrs

from gglib.domain.file_mark import FileMark
from gglib.domain.model import Model
from gglib.errors import InvalidModelFile, ModelFileMissing
from gglib.ports.model_source import ModelSource

__all__ = ["FileState", "Verification", "VerifiedFile", "verify_files"]


class FileState(StrEnum):
    """What a file is, compared to what was recorded."""

    INTACT = "intact"
    RECORDED = "recorded"
    """Nothing was on record; now its sum is."""
    CHANGED = "changed"
    """It was written to since."""
    DAMAGED = "damaged"
    """Its bytes are others, while its size and time are the same: or not what was fetched."""
    MISSING = "missing"
    UNREADABLE = "unreadable"


@attrs.frozen(kw_only=True)
class VerifiedFile:
    """One file of a model."""

    path: Path
    state: FileState
    sha256: str | None = None
    recorded_sha256: str | None = None
    reason: str | None = None


@attrs.frozen(kw_only=True)
class Verification:
    """A model's files, the first shard first. ``model`` is as it is kept afterwards."""

    model: Model
    files: tuple[VerifiedFile, ...]

    @property
    def intact(self) -> bool:
        """Whether every file is what it was, or is on record only now."""
        return all(each.state in (FileState.INTACT, FileState.RECORDED) for each in self.files)


async def verify_files(
    model: Model,
    source: ModelSource,
    *,
    accept: bool,
    on_bytes: Callable[[int], None] | None,
) -> tuple[tuple[VerifiedFile, ...], tuple[FileMark, ...]]:
    """Read all files. Return what they are, and what to keep of them (empty: nothing new)."""
    marks: tuple[FileMark | None, ...] = model.marks or (None,) * len(model.paths)
    files, kept = [], list[FileMark]()
    for path, mark in zip(model.paths, marks, strict=True):
        recorded = _recorded(model, mark)
        try:
            found = await source.digest(path, on_bytes)
        except ModelFileMissing:
            files.append(_lost(path, FileState.MISSING, recorded, "no such file"))
            continue
        except InvalidModelFile as error:
            files.append(_lost(path, FileState.UNREADABLE, recorded, error.reason))
            continue
        state = FileState.RECORDED if accept else _compared(found, mark, recorded)
        files.append(
            VerifiedFile(path=path, state=state, sha256=found.sha256, recorded_sha256=recorded)
        )
        kept.append(found)
    whole = len(kept) == len(files)
    new = any(each.state is FileState.RECORDED for each in files)
    good = all(each.state in (FileState.INTACT, FileState.RECORDED) for each in files)
    return tuple(files), tuple(kept) if whole and new and good else ()


def _recorded(model: Model, mark: FileMark | None) -> str | None:
    if mark is not None and mark.sha256 is not None:
        return mark.sha256
    return model.origin.sha256 if len(model.paths) == 1 else None


def _compared(found: FileMark, mark: FileMark | None, recorded: str | None) -> FileState:
    if recorded == found.sha256:
        return FileState.INTACT
    untouched = mark is None or (mark.size_bytes, mark.mtime_ns) == (
        found.size_bytes,
        found.mtime_ns,
    )
    if not untouched:
        return FileState.CHANGED
    return FileState.RECORDED if recorded is None else FileState.DAMAGED


def _lost(path: Path, state: FileState, recorded: str | None, reason: str) -> VerifiedFile:
    return VerifiedFile(path=path, state=state, recorded_sha256=recorded, reason=reason)
