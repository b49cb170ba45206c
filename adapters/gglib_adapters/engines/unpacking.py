"""Archives, unpacked so that nothing in them reaches beyond their folder or fills the disk.

Nothing that an archive says of itself is trusted: bytes are counted as they come, a name is
made of plain parts, links are made last and lead to files that were unpacked here.
"""

from __future__ import annotations

import gzip
import io
import os
import posixpath
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, BinaryIO

import attrs

__all__ = ["Bounds", "UnpackFailed", "unpack"]

_COPY_BYTES = 1 << 20
#: More than this at once no header needs: a tar's own extensions are read whole.
_MAX_READ_BYTES = 4 << 20
_MAX_PARTS = 16


class UnpackFailed(Exception):
    """The archive is broken, or not one that may be unpacked; the text says why."""


@attrs.frozen(kw_only=True)
class Bounds:
    """The most that an archive may hold."""

    files: int = 20_000
    total_bytes: int = 16 << 30


def unpack(archive: Path, folder: Path, bounds: Bounds) -> None:
    """Unpack a ``.zip`` or ``.tar.gz`` into an empty folder of its own.

    Files are their owner's alone, runnable where the archive says so.

    Raises:
        UnpackFailed: it is broken, too large, or holds what it must not.
        OSError: the disk fails.
    """
    writer = _Writer(folder, bounds)
    try:
        if archive.name.endswith(".zip"):
            _unpack_zip(archive, writer)
        else:
            _unpack_tar(archive, writer)
        writer.make_links()
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise UnpackFailed(f"{archive.name} is broken: {error}") from error
    except (NotImplementedError, RuntimeError) as error:  # a zip with a password, or so
        raise UnpackFailed(f"{archive.name} cannot be read: {error}") from error
    except gzip.BadGzipFile as error:
        raise UnpackFailed(f"{archive.name} is broken: {error}") from error


class _Writer:
    """Writes below one folder, and keeps count."""

    def __init__(self, folder: Path, bounds: Bounds) -> None:
        self._folder = folder
        self._bounds = bounds
        self._files: set[str] = set()
        self._links: dict[str, str] = {}
        self._entries = 0
        self._bytes = 0

    def count(self) -> None:
        """Count an entry of any kind."""
        self._entries += 1
        if self._entries > self._bounds.files:
            raise UnpackFailed(f"it holds more than {self._bounds.files} files")

    def write(self, name: str, source: IO[bytes], *, runnable: bool) -> None:
        """Write a file."""
        plain = _plain(name)
        path = self._folder / plain
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        try:
            descriptor = os.open(path, flags, 0o700 if runnable else 0o600)
        except FileExistsError:
            raise UnpackFailed(f"it holds '{plain}' twice") from None
        with os.fdopen(descriptor, "wb") as file:
            while piece := source.read(_COPY_BYTES):
                self._bytes += len(piece)
                if self._bytes > self._bounds.total_bytes:
                    raise UnpackFailed(f"it holds more than {self._bounds.total_bytes} bytes")
                file.write(piece)
        self._files.add(plain)

    def link(self, name: str, target: str) -> None:
        """Have a link made at the end. ``target``: as seen from the link's own folder."""
        plain = _plain(name)
        if plain in self._links or plain in self._files:
            raise UnpackFailed(f"it holds '{plain}' twice")
        whole = posixpath.normpath(posixpath.join(posixpath.dirname(plain), target))
        if target.startswith("/") or "\0" in target or "\\" in target or whole.startswith(".."):
            raise UnpackFailed(f"its link '{plain}' leads out, to '{target[:200]}'")
        self._links[plain] = whole

    def make_links(self) -> None:
        """Make the links: of each, the end is a file that is here."""
        for name in self._links:
            end, steps = name, 0
            while end in self._links and steps <= len(self._links):
                end, steps = self._links[end], steps + 1
            if end not in self._files:
                raise UnpackFailed(f"its link '{name}' leads to nothing")
            path = self._folder / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.exists():
                raise UnpackFailed(f"it holds '{name}' twice")
            path.symlink_to(os.path.relpath(self._folder / end, path.parent))


def _plain(name: str) -> str:
    """Return a name below the folder.

    Raises:
        UnpackFailed: it leads elsewhere.
    """
    parts = [part for part in name.split("/") if part not in {"", "."}]
    strange = (
        name.startswith("/")
        or not parts
        or len(parts) > _MAX_PARTS
        or any(part == ".." or len(part.encode()) > 255 for part in parts)
        or any(character in name for character in "\0\\:")
    )
    if strange:
        raise UnpackFailed(f"it holds a file with the name {name[:200]!r}")
    return "/".join(parts)


def _unpack_zip(archive: Path, writer: _Writer) -> None:
    with zipfile.ZipFile(archive) as zipped:
        for entry in zipped.infolist():
            writer.count()
            mode = entry.external_attr >> 16
            if entry.is_dir():
                continue
            if stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
                raise UnpackFailed(f"it holds '{entry.filename[:200]}', which is no plain file")
            with zipped.open(entry) as source:
                writer.write(entry.filename, source, runnable=bool(mode & 0o111))


def _unpack_tar(archive: Path, writer: _Writer) -> None:
    # Read through once, from the front: nothing is searched for.
    with gzip.open(archive) as plain, tarfile.open(fileobj=_Careful(plain), mode="r:") as tarred:
        for member in tarred:
            writer.count()
            # What was read stays in its list: the count bounds it.
            if member.isdir():
                continue
            if member.isreg():
                source = tarred.extractfile(member)
                assert source is not None
                writer.write(member.name, source, runnable=bool(member.mode & 0o111))
            elif member.issym():
                writer.link(member.name, member.linkname)
            elif member.islnk():
                from_here = posixpath.relpath(
                    _plain(member.linkname), posixpath.dirname(_plain(member.name)) or "."
                )
                writer.link(member.name, from_here)
            else:
                raise UnpackFailed(f"it holds '{member.name[:200]}', which is no plain file")


class _Careful(io.RawIOBase):
    """A file whose reader cannot be made to read a great deal at once."""

    def __init__(self, file: BinaryIO | gzip.GzipFile) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_READ_BYTES:
            raise UnpackFailed("it has a header that is too long")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()
