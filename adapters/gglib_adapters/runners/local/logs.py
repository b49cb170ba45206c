"""Server output on disk: bounded, private, readable while it is written."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Set
from contextlib import suppress
from pathlib import Path

__all__ = ["LogFolder", "LogReader"]

_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]")
_NAME = re.compile(r"(?P<model>.+)-(?P<server_id>[0-9A-HJKMNP-TV-Z]{26})\.log")
_BLOCK_BYTES = 65_536


class LogFolder:
    """The output of every server of a data directory: one file each, and one older part."""

    __slots__ = ("_keep", "_max_bytes", "_path")

    def __init__(self, path: Path, *, max_bytes: int, keep: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep

    def path_of(self, model_name: str, server_id: str) -> Path:
        """Return where a server's output goes."""
        return self._path / f"{_safe(model_name)}-{_UNSAFE.sub('_', server_id)}.log"

    def open(self, model_name: str, server_id: str) -> int:
        """Return a descriptor that appends to the server's file; the caller closes it."""
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        return os.open(self.path_of(model_name, server_id), flags, 0o600)

    def prune(self, model_name: str, running: Callable[[], Set[str]]) -> None:
        """Keep the newest files of the model, and those of servers that run.

        ``running`` returns their ids; it is asked only when there is something to remove.
        """
        old = self.kept(model_name)[self._keep :]
        if not old:
            return
        alive = running()
        for server_id in old:
            if server_id not in alive:
                path = self.path_of(model_name, server_id)
                _older(path).unlink(missing_ok=True)
                path.unlink(missing_ok=True)

    def kept(self, model_name: str) -> list[str]:
        """Return the ids of the model's servers whose output is here, the newest first."""
        wanted = _safe(model_name)
        matches = (_NAME.fullmatch(path.name) for path in self._path.glob("*.log"))
        found = [match["server_id"] for match in matches if match and match["model"] == wanted]
        # ULIDs sort by time.
        return sorted(found, reverse=True)

    def rotate(self) -> None:
        """Move output beyond the limit to the older part. Servers go on writing meanwhile.

        Their descriptors append, so that truncating is all it takes; what is written between
        the copy and the cut, microseconds apart, is lost.
        """
        for path in self._path.glob("*.log"):
            with suppress(OSError):
                if path.stat().st_size > self._max_bytes:
                    self._rotate(path)

    def _rotate(self, path: Path) -> None:
        with path.open("r+b") as source:
            if not _locked(source.fileno()):
                return
            size = os.fstat(source.fileno()).st_size
            if size <= self._max_bytes:
                return
            source.seek(max(0, size - self._max_bytes))
            partial = path.with_name(f"{path.name}.partial")
            try:
                with open(partial, "wb", opener=_private) as target:
                    shutil.copyfileobj(source, target)
                partial.replace(_older(path))
            finally:
                partial.unlink(missing_ok=True)
            source.truncate(0)

    def reader(self, model_name: str, server_id: str) -> LogReader:
        """Return a reader of the server's output; the file need not exist."""
        return LogReader(self.path_of(model_name, server_id))


class LogReader:
    """Reads lines, the last ones first, then what is new. Keeps no file open between calls."""

    __slots__ = ("_path", "_pending", "_position")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self._pending = b""

    def tail(self, lines: int, *, unfinished: bool = True) -> list[str]:
        """Return the last ``lines`` lines; with ``unfinished``, the one still being written too."""
        content = b""
        with suppress(FileNotFoundError):
            content, self._position = _end_of(self._path, lines)
        if content.count(b"\n") < lines:
            with suppress(FileNotFoundError):
                content = _end_of(_older(self._path), lines)[0] + content
        if not unfinished:
            head, newline, self._pending = content.rpartition(b"\n")
            content = head + newline
        return _lines(content)[-lines:] if lines > 0 else []

    def news(self, *, final: bool = False) -> list[str]:
        """Return the lines that were finished since; with ``final``, the unfinished one too."""
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < self._position:
                self._position = 0
            file.seek(self._position)
            read = file.read()
            self._position += len(read)
            self._pending += read
        if final:
            finished, self._pending = self._pending, b""
        else:
            head, newline, rest = self._pending.rpartition(b"\n")
            finished, self._pending = head + newline, rest
        return _lines(finished)


def _safe(model_name: str) -> str:
    return _UNSAFE.sub("_", model_name)[:80]


def _older(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _locked(descriptor: int) -> bool:
    """Return whether this process may rotate the file: two would lose the first one's copy."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _end_of(path: Path, lines: int) -> tuple[bytes, int]:
    """Return the end of the file, with ``lines`` whole lines if it has them, and its size."""
    content = b""
    with path.open("rb") as file:
        size = position = file.seek(0, os.SEEK_END)
        while position > 0 and content.count(b"\n") <= lines:
            step = min(_BLOCK_BYTES, position)
            position -= step
            file.seek(position)
            content = file.read(step) + content
    return content, size


def _lines(content: bytes) -> list[str]:
    lines = content.decode(errors="replace").split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.rstrip("\r") for line in lines]
