"""Model sources by name: ``zoo:tiny`` is what the source ``zoo`` calls ``tiny``."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from pathlib import Path

from gglib.domain.file_mark import FileMark
from gglib.domain.projector import Projector
from gglib.errors import InvalidValue, ModelFileMissing
from gglib.ports.far_files import FarFiles
from gglib.ports.model_source import FolderSurvey, LocatedModel, ModelSource

__all__ = ["FILES", "ModelSources", "check_source_name", "reference_of"]

#: The source of everything that names no other.
FILES = "file"
#: Kinds of origin that are no sources: a model of that origin is the configuration's.
_RESERVED = frozenset({FILES, "config"})
# A single letter is a drive of Windows.
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]+", re.ASCII)
_REFERENCE = re.compile(rf"({_NAME.pattern}):(.*)", re.ASCII | re.DOTALL)


def check_source_name(name: str) -> str:
    """Return ``name`` if it may name a source beside that of files, else raise ``InvalidValue``."""
    if not _NAME.fullmatch(name) or name in _RESERVED:
        expected = "two or more letters, digits or ._+-, and neither 'file' nor 'config'"
        raise InvalidValue("source", name, expected)
    return name


def reference_of(path: os.PathLike[str]) -> str:
    """Return the reference that means ``path`` and nothing else."""
    text = os.fspath(path)
    return f"{os.curdir}{os.sep}{text}" if _REFERENCE.fullmatch(text) else text


def _no_names() -> Collection[str]:
    return ()


def _no_source(name: str) -> AbstractAsyncContextManager[ModelSource]:
    raise LookupError(name)  # pragma: no cover - it has no names, so that nobody asks


def _no_blame(_name: str) -> AbstractContextManager[None]:
    return nullcontext()


class ModelSources(ModelSource):
    """Several sources as one: ``NAME:REST`` is the named source's, everything else a file's.

    A named source is held for one look-up only, by the task that looks: nothing is opened that
    nobody names, and whatever task adds a model also leaves what it entered.
    """

    __slots__ = ("_blame", "_files", "_names", "_open")

    def __init__(
        self,
        files: ModelSource,
        *,
        names: Callable[[], Collection[str]] = _no_names,
        open_source: Callable[[str], AbstractAsyncContextManager[ModelSource]] = _no_source,
        blame: Callable[[str], AbstractContextManager[None]] = _no_blame,
    ) -> None:
        """``blame`` holds each call of a named source, and makes its faults ``AdapterError``s."""
        self._files = files
        # Asked only when a reference looks like a source's: to know them costs a search.
        self._names = names
        self._open = open_source
        self._blame = blame

    def split(self, reference: str) -> tuple[str, str]:
        """Return the name of the source that ``reference`` means, and what it is asked for."""
        match = _REFERENCE.fullmatch(reference)
        if match is not None and match[1] in self._known():
            return match[1], match[2]
        return FILES, reference

    async def locate(self, reference: str) -> LocatedModel:
        """Find what ``reference`` names.

        Raises:
            AdapterError: it names a source that is broken.
            ModelFileMissing: there is no such file; carries the sources that may have been meant.
        """
        name, rest = self.split(reference)
        if name != FILES:
            async with self._open(name) as source:
                with self._blame(name):
                    located: object = await source.locate(rest)
                    if not isinstance(located, LocatedModel):
                        kind = type(located).__name__
                        raise TypeError(f"locate returned a {kind}, which is no LocatedModel")
                    return located
        try:
            return await self._files.locate(reference)
        except ModelFileMissing:
            if _REFERENCE.fullmatch(reference) and (known := self._known()):
                raise ModelFileMissing(Path(reference), tuple(sorted(known))) from None
            raise

    def elsewhere(self, files: FarFiles) -> ModelSource:
        """Ask the source of files."""
        return self._files.elsewhere(files)

    async def projectors(self, folder: Path) -> tuple[Projector, ...]:
        """Ask the source of files."""
        return await self._files.projectors(folder)

    async def survey(self, folder: str, known: Collection[Path]) -> FolderSurvey:
        """Ask the source of files."""
        return await self._files.survey(folder, known)

    async def digest(self, path: Path, on_bytes: Callable[[int], None] | None = None) -> FileMark:
        """Ask the source of files."""
        return await self._files.digest(path, on_bytes)

    async def delete(self, path: Path) -> None:
        """Ask the source of files."""
        await self._files.delete(path)

    def _known(self) -> frozenset[str]:
        return frozenset(name for name in self._names() if _NAME.fullmatch(name)) - _RESERVED
