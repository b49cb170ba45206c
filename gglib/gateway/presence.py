"""One gateway per data directory: the lock, and the note that says where it answers."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import msgspec
from filelock import FileLock, Timeout

from gglib.errors import GatewayRunning

__all__ = ["Presence", "hold_presence", "read_presence"]

#: How long a new gateway tries for the lock: who looks at a dead one's note holds it that briefly.
_LOOK_S = 0.25


@attrs.frozen(kw_only=True)
class Presence:
    """Where a gateway answers, and the token that lets this user administer it."""

    address: str
    pid: int
    admin_token: str = attrs.field(repr=False)
    version: str
    started_at: float
    certificate: str | None = None
    """In PEM, what the gateway shows who it is with; ``None``: it does not speak TLS."""


class _Note(msgspec.Struct):
    address: str
    pid: int
    admin_token: str
    version: str
    started_at: float
    certificate: str | None = None


def _lock(data_dir: Path) -> FileLock:
    return FileLock(data_dir / "gateway.lock", timeout=0, mode=0o600)


def read_presence(data_dir: Path) -> Presence | None:
    """Return the gateway that owns ``data_dir``, or ``None`` if none lives.

    A note without its lock is a dead gateway's, and is removed.
    """
    if _read_note(data_dir) is None:
        return None
    lock = _lock(data_dir)
    try:
        lock.acquire()
    except Timeout:
        # Read again: it may have been removed by somebody who looked, and holds the lock for it.
        return _read_note(data_dir)
    except OSError:
        return None
    _remove_note(data_dir)
    lock.release()
    return None


def _read_note(data_dir: Path) -> Presence | None:
    try:
        note = msgspec.json.decode((data_dir / "gateway.json").read_bytes(), type=_Note)
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError):
        return None
    return Presence(**msgspec.structs.asdict(note))


def _remove_note(data_dir: Path) -> None:
    with contextlib.suppress(OSError):
        (data_dir / "gateway.json").unlink()


@contextmanager
def hold_presence(data_dir: Path) -> Iterator[PresenceKeeper]:
    """Own ``data_dir`` for the block; the lock ends with the process, however it ends.

    Raises:
        GatewayRunning: another gateway owns it.
    """
    lock = _lock(data_dir)
    try:
        lock.acquire(timeout=_LOOK_S, poll_interval=0.02)
    except Timeout:
        other = read_presence(data_dir)
        raise GatewayRunning(
            data_dir, other.pid if other else None, other.address if other else None
        ) from None
    try:
        # What a dead gateway left would pass for this one's while it starts.
        _remove_note(data_dir)
        yield PresenceKeeper(data_dir / "gateway.json")
    finally:
        _remove_note(data_dir)
        lock.release()


class PresenceKeeper:
    """Writes the note once the gateway listens."""

    __slots__ = ("_path", "admin_token")

    def __init__(self, path: Path) -> None:
        self._path = path
        self.admin_token = secrets.token_urlsafe(32)

    def announce(
        self, address: str, *, version: str, started_at: float, certificate: str | None = None
    ) -> None:
        """Write where the gateway answers; atomic, and readable by this user only."""
        note = _Note(address, os.getpid(), self.admin_token, version, started_at, certificate)
        fresh = self._path.with_suffix(".new")
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(note))
        fresh.replace(self._path)
