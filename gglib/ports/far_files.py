"""Files of models that lie on another machine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from gglib.domain.file_mark import FileMark
from gglib.errors import NotConfigured

__all__ = ["FarFile", "FarFiles", "FarFolder", "Missing"]


@attrs.frozen(kw_only=True)
class FarFile:
    """A file there. ``path``: absolute."""

    path: Path
    mark: FileMark
    identity: str = ""
    """What is the same for all ways to one file; empty: not told."""


@attrs.frozen(kw_only=True)
class FarFolder:
    """What lies in a folder there and below. ``path``: absolute."""

    path: Path
    files: tuple[FarFile, ...] = ()
    trouble: tuple[str, ...] = ()
    """What could not be listed, in words for people."""


@attrs.frozen
class Missing:
    """Why there is no file to be read: ``reason`` is empty if there is none at all."""

    reason: str = ""


class FarFiles(ABC):
    """Looks at the files of another machine, and reads little pieces of them.

    Every method raises ``NodeUnreachable`` when nobody there answers.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def node(self) -> str:
        """The machine's name."""

    @abstractmethod
    async def look(self, paths: Sequence[str]) -> list[FarFile | Missing]:
        """Return what each path leads to, in their order. ``~`` and what is relative: home."""

    @abstractmethod
    async def models_in(self, folder: str) -> FarFolder:
        """Return the ``.gguf`` files in a folder and below, by path. Nothing is read of them.

        Raises:
            ModelFileMissing: there is no such folder.
            InvalidModelFile: it is no folder, may not be read, or has too many files.
        """

    @abstractmethod
    async def heads(self, paths: Sequence[Path]) -> list[bytes]:
        """Return the first 4,096 bytes of each file, filled up with zeros."""

    @abstractmethod
    async def read(self, file: FarFile, offset: int, count: int) -> bytes:
        """Return up to ``count`` bytes from ``offset`` on; fewer at the file's end.

        Raises:
            InvalidModelFile: it is another file than ``file`` was.
        """

    async def sha256(self, file: FarFile, on_bytes: Callable[[int], None] | None = None) -> str:
        """Return the SHA-256 of a file in hexadecimal digits, computed where it lies.

        ``on_bytes`` is told how many more bytes were read, again and again. It takes as long
        as reading the file does there; if cancelled, nothing goes on there.

        Raises:
            NotConfigured: nothing there computes it.
            InvalidModelFile: the file cannot be read, or is another than ``file`` was.
        """
        del file, on_bytes
        raise NotConfigured(f"computing SHA-256 on {self.node}", "its runner cannot do that")
