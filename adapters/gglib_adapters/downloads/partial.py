"""A file that is not whole yet, and what is known of the one it is part of.

Every step leaves something that the next process can go on with, wherever kill -9 falls: the
note changes only while the file is empty, and bytes are only ever added at the end.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import attrs

from gglib.errors import DownloadFailed, NoSpace
from gglib.ports.downloader import partial_of

__all__ = ["PartialFile", "Version"]

_FULL = {errno.ENOSPC, errno.EDQUOT}
_READ_BYTES = 8 << 20


@attrs.frozen(kw_only=True)
class Version:
    """Which version of a file, as its server tells it."""

    source: str
    """A digest of the URL, which may hold secrets."""
    total_bytes: int | None = None
    etag: str | None = None
    last_modified: str | None = None

    @property
    def validator(self) -> str | None:
        """What a server can be asked with, whether it still has this version.

        Source: RFC 9110, 13.1.5: a weak tag is none.
        """
        if self.etag is not None and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified


class PartialFile:
    """``TARGET.partial``, locked against other processes while it is open.

    Its methods block: call them in a thread.
    """

    def __init__(self, target: Path, shown_url: str) -> None:
        """Open or make it.

        Raises:
            DownloadFailed: another process fetches to ``target``.
            OSError: it cannot be opened.
        """
        self._target = target
        self._path = partial_of(target)
        self._note = self._path.with_name(self._path.name + ".json")
        # No link that lies in its place leads elsewhere.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(self._path, flags, 0o600)
        self._hash = hashlib.sha256()
        self._hashed_bytes = 0
        try:
            if not _locked(self._descriptor, self._path):
                raise DownloadFailed(shown_url, f"another process fetches it to {target}")
            self.size_bytes = os.fstat(self._descriptor).st_size
            self.version = self._read_note()
        except BaseException:
            os.close(self._descriptor)
            raise

    def hash_on(self) -> bool:
        """Hash a piece of what is there; return whether there is more."""
        os.lseek(self._descriptor, self._hashed_bytes, os.SEEK_SET)
        piece = os.read(self._descriptor, min(_READ_BYTES, self.size_bytes - self._hashed_bytes))
        self._hash.update(piece)
        self._hashed_bytes += len(piece)
        return bool(piece) and self._hashed_bytes < self.size_bytes

    @property
    def hashed_bytes(self) -> int:
        """How much of it has been hashed."""
        return self._hashed_bytes

    def restart(self, version: Version) -> None:
        """Throw away what is there; what comes now is of ``version``."""
        os.ftruncate(self._descriptor, 0)
        self.size_bytes = self._hashed_bytes = 0
        self._hash = hashlib.sha256()
        fresh = self._note.with_name(self._note.name + ".new")
        with self._room_for(0):
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(attrs.asdict(version), file)
        fresh.replace(self._note)
        self.version = version

    def add(self, data: bytes) -> None:
        """Add bytes at the end; all that is there has been hashed.

        Raises:
            NoSpace: the disk is full.
        """
        with self._room_for(len(data)):
            os.lseek(self._descriptor, self.size_bytes, os.SEEK_SET)
            view = memoryview(data)
            while view:
                written = os.write(self._descriptor, view)
                self._hash.update(view[:written])
                self.size_bytes += written
                self._hashed_bytes += written
                view = view[written:]

    def check_room(self, more_bytes: int) -> None:
        """Raise ``NoSpace`` unless the disk has room for so much more."""
        free = shutil.disk_usage(self._path.parent).free
        if free < more_bytes:
            raise NoSpace(self._target, more_bytes, free)

    def sha256(self) -> str:
        """Return the hash of what is there."""
        return self._hash.hexdigest()

    def finish(self) -> None:
        """Put it in its place, whole: after this the target survives the loss of power."""
        with self._room_for(0):
            os.fsync(self._descriptor)
        if os.name == "nt":  # pragma: no cover - an open file cannot be moved there
            self.close()
        self._path.replace(self._target)
        self._note.unlink(missing_ok=True)
        self.close()
        _sync_folder(self._target.parent)

    def discard(self) -> None:
        """Remove it: what is in it is of no use to anybody."""
        self._path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def close(self) -> None:
        """Let it go. An empty one is removed."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        if self.size_bytes == 0:
            self.discard()
        os.close(descriptor)

    def _read_note(self) -> Version | None:
        try:
            known = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        match known:
            case {
                "source": str() as source,
                "total_bytes": int() | None as total_bytes,
                "etag": str() | None as etag,
                "last_modified": str() | None as last_modified,
            }:
                return Version(
                    source=source,
                    total_bytes=total_bytes,
                    etag=etag,
                    last_modified=last_modified,
                )
        return None

    def _room_for(self, more_bytes: int) -> _FullDisk:
        return _FullDisk(self._target, more_bytes)


class _FullDisk:
    """Tells what a full disk raises as ``NoSpace``."""

    def __init__(self, target: Path, more_bytes: int) -> None:
        self._target = target
        self._more_bytes = more_bytes

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        if isinstance(error, OSError) and error.errno in _FULL:
            free = shutil.disk_usage(self._target.parent).free
            raise NoSpace(self._target, self._more_bytes, free) from error


def _locked(descriptor: int, path: Path) -> bool:
    """Lock an open file, as long as it is open; return whether nobody else had it."""
    if os.name == "nt":  # pragma: no cover - written for, not run
        return _locked_on_windows(descriptor)
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who had it may have moved it to its place since we opened it.
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _locked_on_windows(descriptor: int) -> bool:  # pragma: no cover - written for, not run
    import msvcrt

    locking = msvcrt.locking  # type: ignore[attr-defined,unused-ignore]
    os.lseek(descriptor, 1 << 62, os.SEEK_SET)
    try:
        locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    except OSError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # pragma: no cover - folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
