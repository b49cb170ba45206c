"""Databases of every age are brought up to date, or refused with their content untouched."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event
from support.databases import dump, make_database, revision_of

import gglib_migrations
from gglib.bootstrap import SystemClock
from gglib.errors import DatabaseCorrupt, DatabaseTooNew
from gglib.testing.contexts import make_context
from gglib_adapters import schema
from gglib_adapters.catalog.sqlite import open_sqlite_catalog
from gglib_adapters.database import DATABASE_NAME, open_database
from gglib_adapters.database_file import KEPT_BACKUPS

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def anyio_backend() -> str:
    """Run on one loop: what differs between loops is tested with the database."""
    return "asyncio"


class FixedClock(SystemClock):
    """Says the time it is given."""

    def __init__(self, now: float) -> None:
        self._now = now

    def now(self) -> float:
        """Return the given time."""
        return self._now


def tables(connection: sqlite3.Connection) -> dict[str, str]:
    """Return the SQL of every table and index, in one spelling."""
    query = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
    return {name: " ".join(sql.split()) for name, sql in connection.execute(query)}


def test_revisions_known_without_alembic_are_those_of_the_scripts() -> None:
    """The constant says what the scripts say, in their order; the last one is the head."""
    scripts = ScriptDirectory(str(Path(gglib_migrations.__file__).parent))
    history = [script.revision for script in scripts.walk_revisions()]

    assert tuple(reversed(history)) == gglib_migrations.REVISIONS
    assert scripts.get_heads() == [gglib_migrations.head_revision()]


def test_migrated_schema_is_the_one_that_queries_use(tmp_path: Path) -> None:
    """Migrating an empty database gives the tables of the definitions, to the letter."""
    engines = [create_engine(f"sqlite:///{tmp_path / name}.db") for name in ("migrated", "defined")]
    with engines[0].begin() as connection:
        gglib_migrations.upgrade_to_head(connection)
    schema.metadata.create_all(engines[1])
    found = []
    for engine in engines:
        with closing(sqlite3.connect(str(engine.url.database))) as direct:
            found.append(tables(direct))
        engine.dispose()

    migrated, defined = found
    del migrated["alembic_version"]
    assert migrated == defined


async def test_new_database_is_at_the_head_without_a_backup(tmp_path: Path) -> None:
    """There is nothing to save before the first migration; an empty file is new, too."""
    (tmp_path / DATABASE_NAME).touch()

    async with open_database(make_context(tmp_path)) as database:
        assert revision_of(database.path) == gglib_migrations.head_revision()

    assert not (tmp_path / "backups").exists()


@pytest.mark.parametrize("revision", gglib_migrations.REVISIONS[:-1])
async def test_old_database_is_backed_up_and_upgraded(tmp_path: Path, revision: str) -> None:
    """Its models are there afterwards, and the backup is what was there before."""
    path = tmp_path / DATABASE_NAME
    make_database(path, revision)
    before = dump(path)
    clock = FixedClock(datetime(2024, 2, 29, 12, 0, 0, 5, UTC).timestamp())

    async with open_sqlite_catalog(make_context(tmp_path, clock=clock)) as catalog:
        assert [model.name for model in await catalog.list()] == ["qwen"]

    assert revision_of(path) == gglib_migrations.head_revision()
    (backup,) = (tmp_path / "backups").iterdir()
    assert backup.name == f"gglib-{revision}-20240229T120000000005Z.db"
    assert backup.stat().st_mode & 0o777 == 0o600
    assert backup.parent.stat().st_mode & 0o777 == 0o700
    assert dump(backup) == before


async def test_current_database_is_not_backed_up_again(tmp_path: Path) -> None:
    """Only an upgrade makes a copy."""
    for _ in range(2):
        async with open_database(make_context(tmp_path)):
            pass

    assert not (tmp_path / "backups").exists()


async def test_only_the_newest_backups_are_kept(tmp_path: Path) -> None:
    """The oldest go by their time, and other files in the folder are not touched."""
    path, backups = tmp_path / DATABASE_NAME, tmp_path / "backups"
    backups.mkdir()
    (backups / "mine.txt").touch()
    for day in range(1, KEPT_BACKUPS + 3):
        make_database(path, "0001")
        clock = FixedClock(datetime(2024, 1, day, tzinfo=UTC).timestamp())
        async with open_database(make_context(tmp_path, clock=clock)):
            pass
        path.unlink()

    kept = {f"gglib-0001-202401{day:02}T000000000000Z.db" for day in range(3, KEPT_BACKUPS + 3)}
    assert {file.name for file in backups.iterdir()} == kept | {"mine.txt"}


async def test_newer_database_is_refused_untouched(tmp_path: Path) -> None:
    """The error names both schemas, and not a byte has changed."""
    path = tmp_path / DATABASE_NAME
    make_database(path, gglib_migrations.head_revision())
    with closing(sqlite3.connect(path)) as direct, direct:
        direct.execute("UPDATE alembic_version SET version_num = '9999'")
    before = path.read_bytes()

    with pytest.raises(DatabaseTooNew) as caught:
        async with open_database(make_context(tmp_path)):
            pass

    assert (caught.value.found, caught.value.supported) == (
        "9999",
        gglib_migrations.head_revision(),
    )
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [DATABASE_NAME]


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0" * 200])
async def test_file_that_is_no_database_is_refused_untouched(
    tmp_path: Path, content: bytes
) -> None:
    """Whatever it is, it is somebody's: it stays as it was."""
    path = tmp_path / DATABASE_NAME
    path.write_bytes(content)

    with pytest.raises(DatabaseCorrupt) as caught:
        async with open_database(make_context(tmp_path)):
            pass

    assert caught.value.backup is None
    assert path.read_bytes() == content


async def test_cut_off_database_is_refused_with_its_newest_backup(tmp_path: Path) -> None:
    """Damage is reported together with what can be done about it."""
    path = tmp_path / DATABASE_NAME
    make_database(path, "0001")
    async with open_database(make_context(tmp_path)):
        pass
    (backup,) = (tmp_path / "backups").iterdir()
    path.write_bytes(path.read_bytes()[:5000])

    with pytest.raises(DatabaseCorrupt) as caught:
        async with open_database(make_context(tmp_path)):
            pass

    assert caught.value.backup == backup
    assert str(backup) in str(caught.value)


async def test_somebody_elses_database_is_refused_untouched(tmp_path: Path) -> None:
    """A database with other tables is not ours to migrate."""
    path = tmp_path / DATABASE_NAME
    with closing(sqlite3.connect(path)) as direct:
        direct.execute("CREATE TABLE recipes (id)")
    before = path.read_bytes()

    with pytest.raises(DatabaseCorrupt, match="not one of gglib's"):
        async with open_database(make_context(tmp_path)):
            pass

    assert path.read_bytes() == before


def test_statement_that_fails_undoes_the_whole_upgrade(tmp_path: Path) -> None:
    """Schema changes are part of the caller's transaction."""
    engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}", connect_args={"isolation_level": None})
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))

    def fail_after_upgrade() -> None:
        with engine.begin() as connection:
            gglib_migrations.upgrade_to_head(connection)
            raise KeyError

    with pytest.raises(KeyError):
        fail_after_upgrade()
    engine.dispose()

    assert dump(tmp_path / "x.db") == ["BEGIN TRANSACTION;", "COMMIT;"]


def test_alembic_from_the_checkout_upgrades_a_file(tmp_path: Path) -> None:
    """Developers use alembic's own command line, with the settings of the project file."""
    path = tmp_path / "dev.db"
    command = [sys.executable, "-m", "alembic", "-x", f"database={path}", "upgrade", "head"]

    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)

    assert revision_of(path) == gglib_migrations.head_revision()


def test_migrations_are_found_in_an_installed_wheel(tmp_path: Path, wheel: Path) -> None:
    """The wheel carries the scripts, wherever it is unpacked; a percent sign does no harm."""
    site = tmp_path / "100%" / "site"
    zipfile.ZipFile(wheel).extractall(site)
    use = (
        "import sys; sys.path.insert(0, sys.argv[1]); import gglib_migrations, sqlalchemy as sa\n"
        "with sa.create_engine('sqlite://').begin() as connection:\n"
        "    gglib_migrations.upgrade_to_head(connection)\n"
        "    print(gglib_migrations.__file__, sa.inspect(connection).has_table('servers'))\n"
    )

    found = subprocess.run(
        [sys.executable, "-P", "-c", use, str(site)], check=True, capture_output=True, text=True
    )

    assert found.stdout.split() == [str(site / "gglib_migrations" / "__init__.py"), "True"]
