"""The database as a file: made private, checked, backed up, and its errors in our words.

The file is never opened but through SQLite: closing any other descriptor of it would drop
the locks that SQLite holds for this whole process.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from gglib.errors import DatabaseCorrupt, DatabaseTooNew, DataDirectoryUnusable, StorageError
from gglib_migrations import REVISIONS, head_revision

__all__ = [
    "BUSY_TIMEOUT_S",
    "KEPT_BACKUPS",
    "back_up",
    "connect",
    "corrupt",
    "create_private",
    "schema_revision",
    "storage_error",
    "use_wal",
]

#: How long a call waits while another process writes.
BUSY_TIMEOUT_S = 10.0

#: Backups beyond the newest so many are deleted.
KEPT_BACKUPS = 5

_BACKUPS = "gglib-*.db"
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})
_UNUSABLE = frozenset(
    {
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOLFS,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)


def create_private(path: Path) -> None:
    """Make sure that ``path`` exists and is its owner's alone; so are folders made for it.

    Raises:
        DataDirectoryUnusable: it cannot be made.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            path.touch(mode=0o600, exist_ok=False)
        except FileExistsError:
            if path.stat().st_mode & 0o077:
                path.chmod(0o600)
    except OSError as error:
        raise DataDirectoryUnusable(path.parent, error.strerror or str(error)) from error


def connect(path: Path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """Return a connection on which transactions begin and end only when told, and are synced."""
    connection = sqlite3.connect(
        path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def use_wal(connection: sqlite3.Connection) -> None:
    """Let readers and a writer work side by side, where the file system can; it persists."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            return
        except sqlite3.OperationalError as error:
            # SQLite does not wait for another connection that makes the same change.
            if _primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def schema_revision(connection: sqlite3.Connection, path: Path) -> str | None:
    """Return the schema's revision, one of ours; ``None`` for an empty database.

    Raises:
        DatabaseTooNew: the revision is none that we know.
        DatabaseCorrupt: the tables are somebody else's.
    """
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if not tables:
        return None
    if "alembic_version" not in tables:
        raise corrupt(path, "it is a database, but not one of gglib's")
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    found = str(row[0]) if row else "none"
    if found not in REVISIONS:
        raise DatabaseTooNew(path, found, head_revision())
    return found


def back_up(path: Path, revision: str, now: float) -> Path:
    """Copy the database as it is committed, and delete the oldest copies.

    Works beside a writer. Returns the copy: whole, or not there.
    """
    folder = path.parent / "backups"
    stamp = f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%S%fZ}"
    backup = folder / f"gglib-{revision}-{stamp}.db"
    partial = backup.with_suffix(".partial")
    create_private(partial)
    try:
        with closing(connect(path)) as source, closing(connect(partial)) as target:
            source.backup(target)
        partial.replace(backup)
    finally:
        partial.unlink(missing_ok=True)
    for old in _backups(path)[:-KEPT_BACKUPS]:
        old.unlink(missing_ok=True)
    return backup


def _backups(path: Path) -> list[Path]:
    found = (path.parent / "backups").glob(_BACKUPS)
    return sorted(found, key=lambda backup: backup.stem.rpartition("-")[2])


def corrupt(path: Path, reason: str) -> DatabaseCorrupt:
    """Return the error for a damaged database, with its newest backup."""
    backups = _backups(path)
    return DatabaseCorrupt(path, reason, backups[-1] if backups else None)


def storage_error(error: BaseException, path: Path) -> StorageError | None:
    """Return what SQLite's ``error`` means to a user; ``None`` for a fault of ours."""
    code = _primary_code(error)
    if code in _DAMAGED or str(error).startswith(("no such table", "no such column")):
        return corrupt(path, str(error))
    if code in _UNUSABLE:
        return DataDirectoryUnusable(path.parent, f"{path.name}: {error}")
    return None


def _primary_code(error: BaseException) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
