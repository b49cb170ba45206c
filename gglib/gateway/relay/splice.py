"""The shortest way for a stream's events: from one socket to the other as they came."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gglib.gateway.meter import Meter

__all__ = ["Splice"]

#: How a chunk begins, by its length with all its framing. Longer ones are for the parser.
_SIZE_LINES = {len(b"%x" % size) + size + 4: b"%x\r\n" % size for size in range(1, 4096)}


class Splice:
    """Passes whole events on.

    An engine sends an event as one chunk, and mostly it comes in one read. Such a read is told by
    its length and its ends, and is sent on as it is, with the engine's framing. It may only be
    asked at the first byte of a chunk, and leaves the parser at the first byte of the next.

    Many streams are more than a processor's cache holds. So what an event needs is together here:
    to go from object to object for it took as long as all the rest.
    """

    __slots__ = ("_first", "_meter", "_second", "_third", "_write", "heard")

    def __init__(self, write: Callable[[bytes], None], meter: Meter) -> None:
        self._write = write
        self._meter = meter
        self.heard = False
        """Whether something came since somebody set it to false."""
        # The latest three events. What tells of tokens is behind the text, at the end: an event
        # with it, mostly one that says why the text ended, and one that says that this is all.
        self._first = self._second = self._third = b""

    def take(self, data: bytes) -> bool:
        """Pass ``data`` on, and return whether that was done."""
        size_line = _SIZE_LINES.get(len(data))
        if size_line is None or data[: len(size_line)] != size_line or data[-4:] != b"\n\n\r\n":
            return False
        self._write(data)
        self.heard = True
        self._meter.bytes_to_clients += len(data)
        self._first = self._second
        self._second = self._third
        self._third = data
        return True

    def latest(self) -> Iterator[bytes]:
        """Yield the latest events that have passed, without their framing, and forget them."""
        for data in (self._first, self._second, self._third):
            if data:
                yield data[data.find(b"\r\n") + 2 : -2]
        self._first = self._second = self._third = b""
