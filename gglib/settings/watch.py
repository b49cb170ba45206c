"""Whether files have changed since they were last read: by looking, now and then."""

from __future__ import annotations

from pathlib import Path

__all__ = ["FileWatch"]

_Print = tuple[tuple[int, int, int, int], ...]


class FileWatch:
    """Tells when one of some files has changed, and all then kept still for the time of one look.

    So somebody who is still writing is let finish, and while a file is gone for a moment, as
    when another takes its place, nothing has changed.
    """

    __slots__ = ("_latest", "_read", "paths")

    def __init__(self, *paths: Path) -> None:
        self.paths = paths
        self._read = self._latest = self._look()

    def note_reading(self) -> None:
        """Take note that they are about to be read: what changes from now on is news."""
        self._read = self._latest = self._look()

    def has_changed(self) -> bool:
        """Look; return whether they differ from what was read, and not from the last look."""
        before, self._latest = self._latest, self._look()
        return self._latest is not None and self._latest == before and self._latest != self._read

    def _look(self) -> _Print | None:
        try:
            found = [path.stat() for path in self.paths]
        except (OSError, ValueError):
            return None
        return tuple((each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns) for each in found)
