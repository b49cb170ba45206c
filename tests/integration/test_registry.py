"""What is particular to the SQLite registry; the port's promises are in tests/conformance."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from gglib.domain.ids import new_server_id
from gglib.errors import DatabaseCorrupt
from gglib.testing.contexts import make_context
from gglib.testing.contracts.samples import plain_record
from gglib_adapters.catalog.registry import open_sqlite_registry
from gglib_adapters.catalog.sqlite import open_sqlite_catalog


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run every async test here on both loops."""
    return str(request.param)


async def test_records_of_one_moment_are_listed_by_identity(tmp_path: Path) -> None:
    """ULIDs know which came first."""
    records = [plain_record(server_id=each) for each in sorted(new_server_id() for _ in range(5))]
    async with open_sqlite_registry(make_context(tmp_path)) as registry:
        for record in reversed(records):
            await registry.put(record)

        assert await registry.list() == records


async def test_catalog_may_share_the_file(tmp_path: Path) -> None:
    """Its tables are its own."""
    record = plain_record()
    context = make_context(tmp_path)
    async with open_sqlite_registry(context) as registry, open_sqlite_catalog(context) as catalog:
        await registry.put(record)

        assert await registry.get(record.server_id) == record
        assert await catalog.list() == []


async def test_registry_and_catalog_written_at_once_lose_nothing(tmp_path: Path) -> None:
    """Both adapters on one file wait for each other."""
    context = make_context(tmp_path)
    async with open_sqlite_registry(context) as registry, open_sqlite_catalog(context) as catalog:
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(registry.put, plain_record())
                tasks.start_soon(catalog.id_for_name, f"name-{number}")

        assert len(await registry.list()) == 20
        assert await catalog.revision() == 20


@pytest.mark.parametrize(
    ("column", "value"), [("state", "flying"), ("owner_kind", "nobody"), ("config", "{}")]
)
async def test_row_that_is_no_record_names_the_server(
    tmp_path: Path, column: str, value: str
) -> None:
    """A damaged row is a damaged database, and the message says which row."""
    record = plain_record()
    async with open_sqlite_registry(make_context(tmp_path)) as registry:
        await registry.put(record)
        with closing(sqlite3.connect(tmp_path / "gglib.db")) as direct, direct:
            direct.execute(f"UPDATE servers SET {column} = ?", (value,))

        with pytest.raises(DatabaseCorrupt, match=record.server_id):
            await registry.list()
