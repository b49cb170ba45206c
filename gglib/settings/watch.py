"""Whether a file has changed since it was last read: by looking, now and then."""

from __future__ import annotations

from pathlib import Path

__all__ = ["FileWatch"]

_Print = tuple[int, int, int, int]


class FileWatch:
    """Tells when a file has changed and then kept still for the time of one look.

    So somebody who is still writing is let finish, and a file that is gone for a moment, as
    while another takes its place, has not changed.
    """

    __slots__ = ("_latest", "_path", "_read")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = self._latest = self._look()

    def note_reading(self) -> None:
        """Take note that the file is about to be read: what changes from now on is news."""
        self._read = self._latest = self._look()

    def has_changed(self) -> bool:
        """Look; return whether the file differs from what was read, and not from the last look."""
        before, self._latest = self._latest, self._look()
        return self._latest is not None and self._latest == before and self._latest != self._read

    def _look(self) -> _Print | None:
        try:
            found = self._path.stat()
        except (OSError, ValueError):
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
