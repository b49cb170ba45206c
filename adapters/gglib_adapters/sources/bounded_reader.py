"""Reads little pieces of a file whose lengths nobody vouches for."""

from __future__ import annotations

import io
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from operator import length_hint
from pathlib import Path

from gglib.domain.file_mark import FileMark
from gglib.errors import InvalidModelFile, ModelFileMissing

__all__ = ["BoundedReader", "MalformedFile", "mark_of", "open_bounded", "open_regular"]

_WINDOW_BYTES = 1 << 20
#: Real headers are below 40 MiB; a file that asks for more is not one.
_READ_LIMIT_BYTES = 256 << 20
#: Strings and arrays walked one by one; the largest vocabularies have half a million entries.
_WALK_LIMIT = 1 << 23


class MalformedFile(Exception):
    """The bytes are not what they claim to be; the message says how."""


class BoundedReader:
    """A cursor over a file. Every length is checked against the file's size first.

    Memory stays below two windows of 1 MiB plus what ``take`` returns; work is bounded by
    ``read_limit_bytes`` read (256 MiB) and 8 million items walked, whatever the file says.
    """

    __slots__ = (
        "_file",
        "_length",
        "_position",
        "_read_bytes",
        "_read_limit_bytes",
        "_start",
        "_walked",
        "_window",
        "_window_bytes",
        "mark",
        "size",
    )

    def __init__(
        self,
        file: io.RawIOBase | io.BytesIO,
        mark: FileMark,
        window_bytes: int = _WINDOW_BYTES,
        *,
        read_limit_bytes: int = _READ_LIMIT_BYTES,
    ) -> None:
        self.mark = mark
        self.size = mark.size_bytes
        self._window_bytes = window_bytes
        self._read_limit_bytes = read_limit_bytes
        self._file = file
        self._window = b""
        self._start = 0
        self._position = 0
        self._read_bytes = 0
        self._walked = 0
        self._length = struct.Struct("<Q")

    def set_byte_order(self, byte_order: str) -> None:
        """Read lengths as ``<`` (little endian) or ``>`` (big endian) from here on."""
        self._length = struct.Struct(f"{byte_order}Q")

    @property
    def offset(self) -> int:
        """Where the next byte comes from."""
        return self._start + self._position

    def require(self, count: int) -> None:
        """Check that ``count`` more bytes are there."""
        if count > self.size - self.offset:
            raise MalformedFile(
                f"truncated: {count} bytes are needed at byte {self.offset}, "
                f"the file ends at byte {self.size}"
            )

    def walk(self, items: int) -> None:
        """Account for ``items`` that are about to be visited one by one."""
        self._walked += items
        if self._walked > _WALK_LIMIT:
            raise MalformedFile(f"its header has more than {_WALK_LIMIT} items")

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes. The caller has bounded ``count``."""
        self.require(count)
        if self._position + count > len(self._window):
            self._refill(count)
        position = self._position
        self._position = position + count
        return self._window[position : position + count]

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        """Return the numbers of ``layout`` at the cursor."""
        size = layout.size
        if self._position + size > len(self._window):
            self.require(size)
            self._refill(size)
        position = self._position
        self._position = position + size
        return layout.unpack_from(self._window, position)

    def length(self) -> int:
        """Return the 64-bit count at the cursor."""
        return self.unpack(self._length)[0]

    def skip(self, count: int) -> None:
        """Go ``count`` bytes on without reading them."""
        self.require(count)
        self._position += count

    def skip_strings(self, count: int) -> None:
        """Go past ``count`` length-prefixed strings without decoding them."""
        self.require(8 * count)
        self.walk(count)
        read_length = self._length.unpack_from
        remaining = count
        while remaining:
            window, position = self._window, self._position
            left = repeat(None, remaining)
            try:
                # The one loop that a vocabulary makes long: nothing but lengths is looked at.
                for _ in left:
                    position += read_length(window, position)[0] + 8
                remaining = 0
            except (struct.error, OverflowError):
                # The string at ``position`` lies beyond the window, and has left ``left``.
                remaining = length_hint(left) + 1
            self._position = min(position, self.size + 1 - self._start)
            if remaining or self.offset > self.size:
                self.require(8)
                self._refill(8)

    def _refill(self, count: int) -> None:
        self._start, self._position = self.offset, 0
        wanted = min(max(count, self._window_bytes), self.size - self._start)
        self._read_bytes += wanted
        if self._read_bytes > self._read_limit_bytes:
            raise MalformedFile(f"its header is larger than {self._read_limit_bytes >> 20} MiB")
        self._file.seek(self._start)
        window = self._file.read(wanted) or b""
        while len(window) < count:
            more = self._file.read(count - len(window))
            if not more:
                raise MalformedFile("truncated: it became shorter while it was read")
            window += more
        self._window = window


@contextmanager
def open_bounded(path: Path, window_bytes: int = _WINDOW_BYTES) -> Iterator[BoundedReader]:
    """Open the file at ``path`` as ``open_regular`` does; ``window_bytes`` are read at a time.

    Inside the block ``MalformedFile`` becomes ``InvalidModelFile``, too.

    Raises:
        ModelFileMissing, InvalidModelFile: as for ``open_regular``.
    """
    with open_regular(path) as (file, mark):
        yield BoundedReader(file, mark, window_bytes)


@contextmanager
def open_regular(path: Path) -> Iterator[tuple[io.FileIO, FileMark]]:
    """Open the regular file at ``path``; never waits for a pipe or wakes a device.

    Inside the block ``MalformedFile`` and ``OSError`` become ``InvalidModelFile``.

    Raises:
        ModelFileMissing: there is no such file, or a link to nowhere.
        InvalidModelFile: it is no regular file, may not be read, or was written to meanwhile.
    """
    try:
        _check_regular(os.stat(path))  # noqa: PTH116 - beside the descriptor's fstat
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
        with io.FileIO(descriptor) as file:
            found = os.fstat(descriptor)
            _check_regular(found)
            mark = mark_of(found)
            yield file, mark
            if mark_of(os.fstat(descriptor)) != mark:
                raise MalformedFile("it changed while it was read; try again when it is complete")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelFileMissing(path) from error
    except PermissionError as error:
        raise InvalidModelFile(path, "may not be read; check its permissions") from error
    except MalformedFile as error:
        raise InvalidModelFile(path, str(error)) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidModelFile(path, f"cannot be read: {reason}") from error


def mark_of(found: os.stat_result) -> FileMark:
    """Return what tells later whether a file has changed."""
    return FileMark(size_bytes=found.st_size, mtime_ns=found.st_mtime_ns)


def _check_regular(found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise MalformedFile("a directory; name the .gguf file in it")
    if not stat.S_ISREG(found.st_mode):
        raise MalformedFile("not a regular file")
    if not found.st_size:
        raise MalformedFile("empty")
