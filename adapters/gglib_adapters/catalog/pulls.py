"""The queue of pulls in the data directory's SQLite database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import Connection, delete, insert, select, update

from gglib.domain.pull import Pull
from gglib.ports.context import AdapterContext
from gglib.ports.pull_queue import PullQueue
from gglib_adapters.catalog.documents import read_document, to_document
from gglib_adapters.database import Database, open_database
from gglib_adapters.schema import pulls

__all__ = ["SqlitePullQueue", "open_sqlite_pull_queue"]


@asynccontextmanager
async def open_sqlite_pull_queue(context: AdapterContext) -> AsyncIterator[PullQueue]:
    """Open the queue of ``context.data_dir``.

    Raises:
        DatabaseTooNew, DatabaseCorrupt, DataDirectoryUnusable: as for ``open_database``.
    """
    async with open_database(context) as database:
        yield SqlitePullQueue(database, context.data_dir / "pulls.lock")


class SqlitePullQueue(PullQueue):
    """Pulls in SQLite, one document each; the right to fetch is a lock on a file."""

    __slots__ = ("_database", "_lock")

    def __init__(self, database: Database, lock: Path) -> None:
        self._database = database
        self._lock = lock

    async def add(self, pull: Pull) -> Pull:
        """Keep ``pull``, or find the one that does the same; see the port."""

        def work(connection: Connection) -> Pull:
            for other in self._all(connection):
                if not other.state.ended and other.fetches_the_same_as(pull):
                    return other
            connection.execute(insert(pulls).values(id=pull.id, document=to_document(pull)))
            return pull

        return await self._database.write(work)

    async def get(self, pull_id: str) -> Pull | None:
        """Return the pull, or ``None``."""
        return await self._database.read(lambda connection: self._get(connection, pull_id))

    async def list(self) -> list[Pull]:
        """Return all pulls, the oldest first: ids are sorted by time."""
        return await self._database.read(lambda connection: list(self._all(connection)))

    async def edit(self, pull_id: str, change: Callable[[Pull], Pull]) -> Pull | None:
        """Replace the pull by what ``change`` makes of it; see the port."""

        def work(connection: Connection) -> Pull | None:
            before = self._get(connection, pull_id)
            if before is None:
                return None
            after = change(before)
            if after != before:
                document = to_document(after)
                connection.execute(
                    update(pulls).where(pulls.c.id == pull_id).values(document=document)
                )
            return after

        return await self._database.write(work)

    async def remove(self, pull_id: str) -> None:
        """Forget the pull; does nothing if there is none."""
        statement = delete(pulls).where(pulls.c.id == pull_id)

        def work(connection: Connection) -> None:
            connection.execute(statement)

        await self._database.write(work)

    @contextmanager
    def fetching(self) -> Iterator[bool]:
        """Hold the lock, if nobody does; see the port."""
        # One for each call: two of this process must not both have it.
        lock = FileLock(self._lock, timeout=0, mode=0o600, is_singleton=False)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _get(self, connection: Connection, pull_id: str) -> Pull | None:
        document = connection.scalar(select(pulls.c.document).where(pulls.c.id == pull_id))
        return None if document is None else self._read(pull_id, document)

    def _all(self, connection: Connection) -> Iterator[Pull]:
        query = select(pulls.c.id, pulls.c.document).order_by(pulls.c.id)
        for pull_id, document in connection.execute(query):
            yield self._read(pull_id, document)

    def _read(self, pull_id: str, document: str) -> Pull:
        return read_document(self._database, f"pull {pull_id}", document, Pull)
