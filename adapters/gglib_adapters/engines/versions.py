"""Versions of an engine, side by side in the data directory, and which of them is in use.

``engines/NAME/VERSION/`` holds one; ``engines/NAME/current`` its name. What is being made has
a name that begins with a dot, and is moved to its place whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import psutil
from filelock import FileLock, Timeout

from gglib.errors import EngineInstallFailed, EngineInUse, EngineNotFound
from gglib.ports.engine_installer import InstalledEngine
from gglib_adapters.engines.embedded_site import SITE_VARIABLE

__all__ = ["Versions"]

_NOTE = "gglib-engine.json"
_CURRENT = "current"
_MAKING = ".new-"
#: What runs the package of an environment, in another one's interpreter.
_EMBEDDED = "gglib_adapters.engines.embedded_server"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,80}")


@attrs.frozen
class Versions:
    """The versions of one engine. Its methods block: call them in a thread."""

    engine: str
    folder: Path

    @classmethod
    def of(cls, engine: str, data_dir: Path) -> Versions:
        """Return those of an engine in a data directory."""
        return cls(engine, data_dir / "engines" / engine)

    def list(self) -> list[InstalledEngine]:
        """Return those that are whole, the newest first."""
        current = self._current()
        found = [self._read(path, current) for path in self._folders()]
        there = [each for each in found if each is not None]
        return sorted(there, key=lambda each: each.installed_at, reverse=True)

    def get(self, version: str) -> InstalledEngine:
        """Return one.

        Raises:
            EngineNotFound: it is not there; names those that are.
        """
        for each in self.list():
            if each.version == version:
                return each
        there = ", ".join(each.version for each in self.list()) or "none"
        reason = f"version '{version[:100]}' is not installed; installed: {there}"
        raise EngineNotFound(self.engine, reason)

    def current(self) -> InstalledEngine | None:
        """Return the one in use, if it is there."""
        name = self._current()
        if name is None or not _NAME.fullmatch(name):
            return None
        return self._read(self.folder / name, name)

    def use(self, version: str) -> InstalledEngine:
        """Use another from now on: atomic.

        Raises:
            EngineNotFound: it is not there.
        """
        chosen = self.get(version)
        fresh = self.folder / f"{_MAKING}current"
        fresh.write_text(version + "\n")
        fresh.replace(self.folder / _CURRENT)
        return attrs.evolve(chosen, current=True)

    def remove(self, version: str) -> InstalledEngine:
        """Delete one.

        Raises:
            EngineNotFound: it is not there.
            EngineInUse: a process runs it.
        """
        chosen = self.get(version)
        pids = _processes_of(self.folder / version)
        if pids:
            raise EngineInUse(self.engine, version, pids)
        # Gone at once for everybody else, and then piece by piece.
        going = Path(tempfile.mkdtemp(dir=self.folder, prefix=_MAKING))
        (self.folder / version).replace(going / version)
        shutil.rmtree(going)
        if chosen.current:
            (self.folder / _CURRENT).unlink(missing_ok=True)
        return chosen

    @contextmanager
    def making(self, version: str) -> Iterator[Path]:
        """Hold an empty folder for the block, which is removed unless ``place`` has moved it.

        Raises:
            EngineInstallFailed: another process makes one.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock", timeout=0, mode=0o600, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            raise EngineInstallFailed(
                self.engine, version, "another process installs one; wait for it"
            ) from None
        try:
            # Whoever held the lock is gone, and these are what a kill has left.
            for left in self.folder.glob(f"{_MAKING}*"):
                shutil.rmtree(left, ignore_errors=True)
            making = Path(tempfile.mkdtemp(dir=self.folder, prefix=_MAKING))
            try:
                yield making
            finally:
                shutil.rmtree(making, ignore_errors=True)
        finally:
            lock.release()

    def place(self, made: Path, version: str, program: Path, now: float) -> InstalledEngine:
        """Move what was made to its place, whole; what was there is gone.

        ``program``: below ``made``.
        """
        note = {
            "path": program.relative_to(made).as_posix(),
            "installed_at": now,
            "size_bytes": _size_of(made),
        }
        (made / _NOTE).write_text(json.dumps(note))
        target = self.folder / version
        if target.exists():
            aside = Path(tempfile.mkdtemp(dir=self.folder, prefix=_MAKING))
            target.replace(aside / version)
            made.replace(target)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            made.replace(target)
        return self.get(version)

    def _folders(self) -> Iterator[Path]:
        with contextlib.suppress(OSError):
            yield from (path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))

    def _current(self) -> str | None:
        try:
            return (self.folder / _CURRENT).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return None

    def _read(self, folder: Path, current: str | None) -> InstalledEngine | None:
        try:
            note = json.loads((folder / _NOTE).read_text())
        except (OSError, ValueError):
            return None
        match note:
            case {
                "path": str() as place,
                "installed_at": float() | int() as installed_at,
                "size_bytes": int() as size_bytes,
            }:
                return InstalledEngine(
                    engine=self.engine,
                    version=folder.name,
                    path=folder / place,
                    size_bytes=size_bytes,
                    installed_at=installed_at,
                    current=folder.name == current,
                )
        return None


def _size_of(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(root) / name).lstat().st_size
    return total


def _processes_of(folder: Path) -> tuple[int, ...]:
    """Return who runs a program of ``folder``, or was started with something in it."""
    inside = str(folder.resolve()) + os.sep
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            command = process.cmdline()
            words = [process.exe(), *command[:1]]
            if _EMBEDDED in command:
                words.append(process.environ().get(SITE_VARIABLE, ""))
            if any(word.startswith((inside, str(folder) + os.sep)) for word in words):
                found.append(process.pid)
    return tuple(found)
