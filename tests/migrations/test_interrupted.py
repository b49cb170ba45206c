"""Migrations that other processes, or kill -9, come in the way of."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.databases import dump, make_database, revision_of

import gglib_migrations
from gglib_adapters.database import DATABASE_NAME

OPENER = """
import sys, pathlib, anyio
sys.path[:0] = sys.argv[2:]
from gglib.testing.contexts import make_context
from gglib_adapters.catalog.sqlite import open_sqlite_catalog

async def main():
    async with open_sqlite_catalog(make_context(pathlib.Path(sys.argv[1]))) as catalog:
        print(await catalog.id_for_name("qwen"), flush=True)

print("imported", flush=True)
sys.stdin.readline()
anyio.run(main)
"""


FIRST, *BETWEEN, LAST_BUT_ONE, LATEST = gglib_migrations.REVISIONS


@pytest.mark.parametrize(
    "revision",
    [
        *(None, FIRST, LAST_BUT_ONE, LATEST),
        *(pytest.param(each, marks=pytest.mark.soak) for each in BETWEEN),
    ],
)
def test_processes_that_start_together_migrate_once(tmp_path: Path, revision: str | None) -> None:
    """All of them work on, and an old database was backed up once."""
    if revision:
        make_database(tmp_path / DATABASE_NAME, revision)
    paths = [str(Path(__file__).parents[1]), *sys.path]
    command = [sys.executable, "-c", OPENER, str(tmp_path), *paths]
    pipe = subprocess.PIPE
    children = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(3)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "imported\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    answers = [child.communicate() for child in children]

    assert answers == [("1\n", "")] * 3
    backups = list(tmp_path.glob("backups/*"))
    assert len(backups) == (revision in gglib_migrations.REVISIONS[:-1])


KILLED = """
import os, sys, pathlib, signal, anyio
sys.path[:0] = sys.argv[3:]
from sqlalchemy import Engine, event
from gglib.testing.contexts import make_context
from gglib_adapters.database import open_database

left = int(sys.argv[2])

def count(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

event.listen(Engine, "before_cursor_execute", count)

async def main():
    async with open_database(make_context(pathlib.Path(sys.argv[1]))):
        pass

anyio.run(main)
"""


@pytest.mark.parametrize("step", [6, pytest.param(1, marks=pytest.mark.soak)])
def test_upgrade_killed_at_any_statement_is_not_begun_or_done(tmp_path: Path, step: int) -> None:
    """Kill -9 before one after the other: the old database stays whole, and upgrades later."""
    path = tmp_path / DATABASE_NAME
    make_database(path, "0001")
    before = dump(path)
    paths = [str(Path(__file__).parents[1]), *sys.path]
    statement = 0
    while True:
        statement += step
        command = [sys.executable, "-c", KILLED, str(tmp_path), str(statement), *paths]
        status = subprocess.run(command, check=False).returncode
        if status == 0:
            break
        assert status == -signal.SIGKILL
        assert dump(path) == before

    assert statement > 3
    assert revision_of(path) == gglib_migrations.head_revision()
    assert not list(tmp_path.glob("backups/*.partial"))
