"""The one SQLite database of a data directory, shared by the catalog and the registry.

Safe to open any number of times, by any number of processes. Async callers, on asyncio or
trio, hand in plain functions that run in a worker thread inside one transaction.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
from sqlalchemy import Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.exc import DBAPIError

from gglib.errors import DatabaseCorrupt
from gglib.ports.context import AdapterContext
from gglib_adapters import database_file
from gglib_migrations import head_revision, upgrade_to_head

__all__ = ["DATABASE_NAME", "Database", "open_database"]

#: The file's name in the data directory.
DATABASE_NAME = "gglib.db"

_READERS = 4
_MIGRATION_TIMEOUT_S = 60.0

T = TypeVar("T")


class Database:
    """Runs transactions in worker threads.

    A call that is cancelled while it waits for its turn has done nothing; one that has
    begun runs to its end, so a cancelled write is done whole or not at all.
    """

    __slots__ = ("_reading", "_transaction", "_writer", "_writing", "path")

    def __init__(self, path: Path, engine: Engine) -> None:
        self.path = path
        self._writer = engine.execution_options(gglib_begin="IMMEDIATE")
        # Writers of one process queue here, in order; SQLite's own queue is a lottery.
        self._writing = anyio.CapacityLimiter(1)
        self._reading = anyio.CapacityLimiter(_READERS)
        # Cancelling an asyncio task leaves the limiter while the thread still writes.
        self._transaction = threading.Lock()

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Return ``work(connection)``, which sees one consistent state.

        Raises:
            DatabaseCorrupt, DataDirectoryUnusable: as met.
        """
        reader = self._writer.execution_options(gglib_begin="DEFERRED")

        def transaction() -> T:
            with _translated(self.path), reader.begin() as connection:
                return work(connection)

        return await anyio.to_thread.run_sync(transaction, limiter=self._reading)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Return ``work(connection)``; what it wrote is durable then, or undone if it raised.

        Raises:
            DatabaseCorrupt, DataDirectoryUnusable: as met.
        """

        def transaction() -> T:
            with self._transaction, _translated(self.path), self._writer.begin() as connection:
                return work(connection)

        return await anyio.to_thread.run_sync(transaction, limiter=self._writing)

    def close(self) -> None:
        """Close the connections, once a write that is under way has ended. Blocks."""
        with self._transaction:
            self._writer.dispose()

    def damaged(self, reason: str) -> DatabaseCorrupt:
        """Return the error for a row that cannot be what gglib wrote."""
        return database_file.corrupt(self.path, reason)


@asynccontextmanager
async def open_database(context: AdapterContext) -> AsyncIterator[Database]:
    """Open the data directory's database; made, or brought up to date, if need be.

    An older schema is upgraded in one transaction, after a backup; of processes that
    start together one does it and the others wait.

    Raises:
        DatabaseTooNew: a newer gglib wrote it; nothing was changed.
        DatabaseCorrupt: it is not a database of ours, or damaged.
        DataDirectoryUnusable: it cannot be made or written.
    """
    path = context.data_dir / DATABASE_NAME
    limiter = anyio.CapacityLimiter(1)
    await anyio.to_thread.run_sync(_prepare, path, context.clock.now(), limiter=limiter)
    database = Database(path, _create_engine(path, database_file.BUSY_TIMEOUT_S))
    try:
        yield database
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(database.close, limiter=limiter)


def _prepare(path: Path, now: float) -> None:
    database_file.create_private(path)
    with _translated(path), closing(database_file.connect(path)) as connection:
        if database_file.schema_revision(connection, path) != head_revision():
            _migrate(path, now)
        database_file.use_wal(connection)


def _migrate(path: Path, now: float) -> None:
    engine = _create_engine(path, _MIGRATION_TIMEOUT_S).execution_options(gglib_begin="IMMEDIATE")
    try:
        with engine.begin() as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            # Read again under the write lock: another process may have been quicker.
            found = database_file.schema_revision(driver, path)
            if found == head_revision():
                return
            if found is not None:
                database_file.back_up(path, found, now)
            upgrade_to_head(connection)
    finally:
        engine.dispose()


def _create_engine(path: Path, busy_timeout_s: float) -> Engine:
    engine = create_engine(
        "sqlite://",
        creator=lambda: database_file.connect(path, busy_timeout_s),
        poolclass=QueuePool,
        pool_size=_READERS + 1,
        max_overflow=0,
    )
    event.listen(engine, "begin", _begin)
    return engine


def _begin(connection: Connection) -> None:
    # A transaction that reads first and writes later could not wait for its turn.
    kind = connection.get_execution_options()["gglib_begin"]
    connection.exec_driver_sql(f"BEGIN {kind}")


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        translated = cause and database_file.storage_error(cause, path)
        if translated is None:
            raise
        raise translated from error
