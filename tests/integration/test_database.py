"""The shared database: transactions that cancellation cannot tear, and errors in our words."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from sqlalchemy import Connection

from gglib.errors import DatabaseCorrupt, DataDirectoryUnusable
from gglib.testing.contexts import make_context
from gglib_adapters.database import DATABASE_NAME, Database, open_database


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run every async test here on both loops."""
    return str(request.param)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """Open a database in a fresh data directory."""
    async with open_database(make_context(tmp_path)) as opened:
        yield opened


def insert(name: str) -> Callable[[Connection], None]:
    """Return work that writes a name."""

    def work(connection: Connection) -> None:
        connection.exec_driver_sql("INSERT INTO model_names (name) VALUES (?)", (name,))

    return work


async def names(database: Database) -> list[str]:
    """Return the names that were written."""
    query = "SELECT name FROM model_names ORDER BY id"
    return await database.read(lambda connection: list(connection.exec_driver_sql(query).scalars()))


async def test_cancelled_write_that_has_begun_is_done_whole(database: Database) -> None:
    """Cancelling waits for the transaction's end, and leaves no lock behind."""
    begun, may_end = anyio.Event(), threading.Event()

    def work(connection: Connection) -> None:
        insert("first")(connection)
        anyio.from_thread.run_sync(begun.set)
        may_end.wait()
        insert("second")(connection)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(database.write, work)
        await begun.wait()
        tasks.cancel_scope.cancel()
        may_end.set()

    assert await names(database) == ["first", "second"]
    await database.write(insert("third"))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_write_of_a_cancelled_asyncio_task_ends_before_the_database_closes(
    tmp_path: Path, anyio_backend: str
) -> None:
    """A plain ``task.cancel()`` gets through every shield; closing then waits for the thread."""
    begun, loop = asyncio.Event(), asyncio.get_running_loop()
    count = "WITH RECURSIVE n(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM n WHERE x < 1000000)"

    def work(connection: Connection) -> None:
        insert("first")(connection)
        loop.call_soon_threadsafe(begun.set)
        connection.exec_driver_sql(f"{count} SELECT count(*) FROM n").scalar()
        insert("second")(connection)

    async with open_database(make_context(tmp_path)) as database:
        writing = asyncio.create_task(database.write(work))
        await begun.wait()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing

    with closing(sqlite3.connect(database.path)) as direct:
        written = direct.execute("SELECT name FROM model_names ORDER BY id").fetchall()
    assert written == [("first",), ("second",)]


async def test_write_cancelled_in_the_queue_does_nothing(database: Database) -> None:
    """Who gives up before their turn has changed nothing and holds up nobody."""
    begun, may_end = anyio.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        anyio.from_thread.run_sync(begun.set)
        may_end.wait()
        insert("slow")(connection)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(database.write, slow)
        await begun.wait()
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(database.write, insert("queued"))
            await anyio.wait_all_tasks_blocked()
            waiting.cancel_scope.cancel()
        may_end.set()

    assert await names(database) == ["slow"]


async def test_write_that_raises_is_undone(database: Database) -> None:
    """An error in the work undoes all of it and passes through."""

    def work(connection: Connection) -> None:
        insert("lost")(connection)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await database.write(work)

    assert await names(database) == []


async def test_reading_goes_on_beside_a_writer(database: Database) -> None:
    """A reader neither waits for a writer nor sees its unfinished work."""
    begun, may_end = anyio.Event(), threading.Event()

    def work(connection: Connection) -> None:
        insert("unfinished")(connection)
        anyio.from_thread.run_sync(begun.set)
        may_end.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(database.write, work)
        await begun.wait()
        assert await names(database) == []
        may_end.set()


async def test_write_survives_a_loss_of_power_by_setting(database: Database) -> None:
    """Every connection syncs each commit, keeps references, and writes ahead."""

    def settings(connection: Connection) -> list[object]:
        wanted = ("synchronous", "foreign_keys", "journal_mode")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in wanted]

    full = 2
    assert await database.read(settings) == [full, 1, "wal"]
    assert await database.write(settings) == [full, 1, "wal"]


async def test_new_files_are_their_owners_alone(tmp_path: Path) -> None:
    """The folder is 0700; the database and what SQLite puts beside it are 0600."""
    folder = tmp_path / "new" / "data"
    async with open_database(make_context(folder)) as database:
        await database.write(insert("a"))
        modes = {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}

    assert folder.stat().st_mode & 0o777 == 0o700
    assert modes == {"gglib.db": 0o600, "gglib.db-wal": 0o600, "gglib.db-shm": 0o600}


async def test_database_that_others_could_read_is_made_private(tmp_path: Path) -> None:
    """A file that a copy left open to all is closed at the next start."""
    path = tmp_path / DATABASE_NAME
    path.touch(mode=0o644)
    path.chmod(0o644)

    async with open_database(make_context(tmp_path)):
        assert path.stat().st_mode & 0o777 == 0o600


async def test_data_directory_that_is_a_file_is_unusable(tmp_path: Path) -> None:
    """The error names the directory, and no SQL."""
    (tmp_path / "file").touch()

    with pytest.raises(DataDirectoryUnusable) as caught:
        async with open_database(make_context(tmp_path / "file")):
            pass

    assert caught.value.path == tmp_path / "file"
    assert "--data-dir" in str(caught.value)


async def test_database_that_is_a_folder_is_unusable(tmp_path: Path) -> None:
    """SQLite cannot open it, and we say so."""
    (tmp_path / DATABASE_NAME).mkdir(mode=0o700)

    with pytest.raises(DataDirectoryUnusable, match="unable to open"):
        async with open_database(make_context(tmp_path)):
            pass


async def test_full_disk_is_reported_and_the_write_undone(database: Database) -> None:
    """A write that finds no room leaves nothing of itself."""

    def work(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
        for number in range(1000):
            insert(f"{number}" * 1000)(connection)

    with pytest.raises(DataDirectoryUnusable, match="full"):
        await database.write(work)

    assert await names(database) == []


async def test_read_only_database_is_reported(database: Database) -> None:
    """What may only be read is told apart from what is damaged."""

    def work(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA query_only = ON")
        insert("a")(connection)

    with pytest.raises(DataDirectoryUnusable, match="readonly"):
        await database.write(work)


async def test_database_locked_for_too_long_is_reported(database: Database) -> None:
    """Another process's endless transaction ends our waiting with an error, not a hang."""
    await database.read(lambda connection: connection.exec_driver_sql("PRAGMA busy_timeout = 1"))
    with closing(sqlite3.connect(database.path)) as other:
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(DataDirectoryUnusable, match="locked"):
            await database.write(insert("a"))


async def test_damage_met_by_a_query_is_reported(tmp_path: Path) -> None:
    """Pages overwritten with noise are corruption, not an SQL error."""
    async with open_database(make_context(tmp_path)) as database:
        await database.write(insert("a"))
    path = tmp_path / DATABASE_NAME
    content = bytearray(path.read_bytes())
    with closing(sqlite3.connect(path)) as direct:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'model_names'"
        (page,) = direct.execute(query).fetchone()
        (size,) = direct.execute("PRAGMA page_size").fetchone()
    content[(page - 1) * size : page * size] = b"\xa5" * size
    path.write_bytes(content)

    async with open_database(make_context(tmp_path)) as database:
        with pytest.raises(DatabaseCorrupt, match="malformed"):
            await names(database)


async def test_missing_table_is_a_damaged_database(database: Database) -> None:
    """A schema that somebody took apart is reported as such."""
    with closing(sqlite3.connect(database.path)) as direct:
        direct.execute("DROP TABLE model_names")

    with pytest.raises(DatabaseCorrupt, match="no such table"):
        await names(database)
