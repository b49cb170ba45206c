"""What the catalog has acknowledged survives kill -9."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from gglib.testing.contexts import make_context
from gglib_adapters.catalog.sqlite import open_sqlite_catalog


@pytest.fixture
def anyio_backend() -> str:
    """Run on one loop: the disk knows nothing of loops."""
    return "asyncio"


WRITER = """
import sys, itertools, pathlib, anyio, attrs
sys.path[:0] = sys.argv[3:]
from gglib.testing.contexts import make_context
from gglib.domain.model import Model
from gglib_adapters.catalog.sqlite import open_sqlite_catalog

async def main():
    async with open_sqlite_catalog(make_context(pathlib.Path(sys.argv[1]))) as catalog:
        for number in itertools.count(int(sys.argv[2])):
            name = f"model-{number}"
            added = Model(id=0, name=name, paths=["/m"], size_bytes=1, aliases=(f"a{number}",))
            kept = await catalog.add(added)
            print("added", number, flush=True)
            await catalog.update(attrs.evolve(kept, size_bytes=2))
            print("updated", number, flush=True)

anyio.run(main)
"""


async def test_killed_writer_loses_nothing_it_had_acknowledged(tmp_path: Path) -> None:
    """After each kill -9, every acknowledged change is there, whole, and writing goes on."""
    dice = random.Random(20_240_229)
    done: dict[str, set[int]] = {"added": set(), "updated": set()}
    for kill in range(5):
        paths = [str(Path(__file__).parents[1]), *sys.path]
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(kill * 1000), *paths]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(dice.randrange(1, 60)):
                word, number = child.stdout.readline().split()
                done[word].add(int(number))
            child.send_signal(signal.SIGKILL)
            for line in child.stdout.readlines():
                if line.endswith("\n"):
                    word, number = line.split()
                    done[word].add(int(number))
        assert child.returncode == -signal.SIGKILL

        async with open_sqlite_catalog(make_context(tmp_path)) as catalog:
            kept = {int(found.name.removeprefix("model-")): found for found in await catalog.list()}
        assert done["added"] <= kept.keys()
        assert all(kept[number].size_bytes == 2 for number in done["updated"])
    with closing(sqlite3.connect(tmp_path / "gglib.db")) as direct:
        assert direct.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert direct.execute("PRAGMA foreign_key_check").fetchall() == []
        aliases = direct.execute("SELECT count(*) FROM model_aliases").fetchone()
        assert aliases == (len(kept),)
