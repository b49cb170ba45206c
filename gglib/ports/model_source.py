"""Where model files come from, and what they say of themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from pathlib import Path

import attrs

from gglib.domain.file_mark import FileMark
from gglib.domain.model import ModelFacts
from gglib.domain.projector import Projector
from gglib.errors import NotConfigured
from gglib.ports.far_files import FarFiles

__all__ = ["FolderSurvey", "FoundFiles", "LocatedModel", "ModelSource", "PassedOver"]


@attrs.frozen(kw_only=True)
class LocatedModel:
    """A model's files, found and read. ``paths``: absolute, every shard, the first one first."""

    paths: tuple[Path, ...]
    size_bytes: int
    facts: ModelFacts
    suggested_name: str
    marks: tuple[FileMark, ...] = ()
    """What each of ``paths`` was when it was read; empty: not told."""


@attrs.frozen(kw_only=True)
class FoundFiles:
    """The files of what may be one model, every shard in order; none was read."""

    paths: tuple[Path, ...]
    marks: tuple[FileMark, ...]


@attrs.frozen(kw_only=True)
class PassedOver:
    """A file or folder that a survey could make nothing of, and why."""

    path: Path
    reason: str


@attrs.frozen(kw_only=True)
class FolderSurvey:
    """What lies in a folder and all below it, each in the order of its path."""

    models: tuple[FoundFiles, ...] = ()
    projectors: tuple[Projector, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()
    vanished: tuple[Path, ...] = ()
    """Of the known files that should lie there: those that are gone."""


class ModelSource(ABC):
    """Locates model files. What only sources of files can do is not abstract."""

    __slots__ = ()

    @abstractmethod
    async def locate(self, reference: str) -> LocatedModel:
        """Find what ``reference`` (a path) names, and read what it says of itself.

        Reads headers only, bounded; never trusts a length in a file.

        Raises:
            ModelFileMissing: there is nothing, or shards are missing.
            InvalidModelFile: it is a directory, unreadable, not a model file, or changes
                while it is read.
        """

    def elsewhere(self, files: FarFiles) -> ModelSource:
        """Return what locates, surveys and finds projectors among the files of another machine.

        Its methods may raise ``NodeUnreachable``, too.

        Raises:
            NotConfigured: this source cannot.
        """
        raise _no_files(f"reading model files on {files.node}")

    async def projectors(self, folder: Path) -> tuple[Projector, ...]:
        """Return the projectors that lie in ``folder``; none where it cannot be listed."""
        del folder
        return ()

    async def survey(self, folder: str, known: Collection[Path]) -> FolderSurvey:
        """List the model files in ``folder`` and below. Of no model more than 4 KiB are read.

        Links are followed, each folder is entered once, and a file that is reached in several
        ways is found once: not at all if one of the ways, another, is ``known``. Shards are
        one find; a model that lacks some is passed over, as are folders that may not be read.

        Raises:
            ModelFileMissing: there is no such folder.
            InvalidModelFile: it is no folder, or may not be read.
            NotConfigured: this source has no folders.
        """
        del known
        raise _no_files(f"scanning {folder}")

    async def digest(self, path: Path, on_bytes: Callable[[int], None] | None = None) -> FileMark:
        """Read the whole file and return what it is, with its SHA-256.

        ``on_bytes`` is told how many more bytes were read, again and again.

        Raises:
            ModelFileMissing, InvalidModelFile: as for ``locate``.
            NotConfigured: this source has no files.
        """
        del on_bytes
        raise _no_files(f"reading {path}")

    async def delete(self, path: Path) -> None:
        """Delete the file; nothing if it is gone already.

        Raises:
            InvalidModelFile: it may not be deleted; it is there still.
            NotConfigured: this source has no files.
        """
        raise _no_files(f"deleting {path}")


def _no_files(what: str) -> NotConfigured:
    return NotConfigured(what, "the source that is used for files can only locate models")
