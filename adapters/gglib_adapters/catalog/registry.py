"""The server registry in the data directory's SQLite database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Connection, Row, delete, select
from sqlalchemy.dialects.sqlite import insert

from gglib.domain.config import ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.domain.ownership import Owner, OwnerKind, ServerRecord
from gglib.domain.state import ServerState
from gglib.ports.context import AdapterContext
from gglib.ports.server_registry import ServerRegistry
from gglib_adapters.catalog.documents import read_document, to_document
from gglib_adapters.database import Database, open_database
from gglib_adapters.schema import servers

__all__ = ["SqliteServerRegistry", "open_sqlite_registry"]


@asynccontextmanager
async def open_sqlite_registry(context: AdapterContext) -> AsyncIterator[ServerRegistry]:
    """Open the registry of ``context.data_dir``.

    Raises:
        DatabaseTooNew, DatabaseCorrupt, DataDirectoryUnusable: as for ``open_database``.
    """
    async with open_database(context) as database:
        yield SqliteServerRegistry(database)


class SqliteServerRegistry(ServerRegistry):
    """Servers in SQLite, one row each. The file is private: rows hold the servers' keys."""

    __slots__ = ("_database",)

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, record: ServerRecord) -> None:
        """Write ``record``, replacing the one with its ``server_id``."""
        row = _row(record)
        statement = (
            insert(servers)
            .values(row)
            .on_conflict_do_update(index_elements=["server_id"], set_=row)
        )

        def work(connection: Connection) -> None:
            connection.execute(statement)

        await self._database.write(work)

    async def get(self, server_id: str) -> ServerRecord | None:
        """Return the record, or ``None``."""
        query = select(servers).where(servers.c.server_id == server_id)

        def work(connection: Connection) -> ServerRecord | None:
            row = connection.execute(query).one_or_none()
            return None if row is None else self._record(row)

        return await self._database.read(work)

    async def list(self) -> list[ServerRecord]:
        """Return all records, oldest first."""
        query = select(servers).order_by(servers.c.created_at, servers.c.server_id)

        def work(connection: Connection) -> list[ServerRecord]:
            return [self._record(row) for row in connection.execute(query)]

        return await self._database.read(work)

    async def remove(self, server_id: str) -> None:
        """Forget the record; does nothing if there is none."""
        statement = delete(servers).where(servers.c.server_id == server_id)

        def work(connection: Connection) -> None:
            connection.execute(statement)

        await self._database.write(work)

    def _record(self, row: Row[Any]) -> ServerRecord:
        what = f"server {row.server_id}"
        try:
            kind, state = OwnerKind(row.owner_kind), ServerState(row.state)
        except ValueError as error:
            raise self._database.damaged(f"{what} cannot be read: {error}") from error
        return ServerRecord(
            server_id=row.server_id,
            owner=Owner(
                kind=kind,
                pid=row.owner_pid,
                process_started_at=row.owner_process_started_at,
                node=row.owner_node,
            ),
            config=read_document(self._database, what, row.config, ServerConfig),
            engine=row.engine,
            runner=row.runner,
            state=state,
            created_at=row.created_at,
            handle=row.handle and read_document(self._database, what, row.handle, ProcessHandle),
            api_key=row.api_key,
            keep_alive=row.keep_alive,
        )


def _row(record: ServerRecord) -> dict[str, Any]:
    return {
        "server_id": record.server_id,
        "owner_kind": record.owner.kind.value,
        "owner_pid": record.owner.pid,
        "owner_process_started_at": record.owner.process_started_at,
        "owner_node": record.owner.node,
        "config": to_document(record.config),
        "engine": record.engine,
        "runner": record.runner,
        "state": record.state.value,
        "created_at": record.created_at,
        "handle": None if record.handle is None else to_document(record.handle),
        "api_key": record.api_key,
        "keep_alive": record.keep_alive,
    }
