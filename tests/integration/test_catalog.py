"""What is particular to the SQLite catalog; the port's promises are in tests/conformance."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import attrs
import pytest

from gglib.domain.model import ModelFacts
from gglib.errors import DatabaseCorrupt, ModelNotFound
from gglib.testing.contexts import make_context
from gglib.testing.contracts.samples import plain_model
from gglib_adapters.catalog.sqlite import open_sqlite_catalog


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run every async test here on both loops."""
    return str(request.param)


@pytest.mark.parametrize("document", ["{", '{"unknown": 1}', "[]"])
async def test_row_that_is_no_model_names_the_model(tmp_path: Path, document: str) -> None:
    """A damaged row is a damaged database, and the message says which row."""
    async with open_sqlite_catalog(make_context(tmp_path)) as catalog:
        await catalog.add(plain_model("qwen"))
        with closing(sqlite3.connect(tmp_path / "gglib.db")) as direct, direct:
            direct.execute("UPDATE models SET document = ?", (document,))

        with pytest.raises(DatabaseCorrupt, match="model 'qwen'"):
            await catalog.list()


async def test_number_beyond_the_column_is_no_model(tmp_path: Path) -> None:
    """An id that SQLite cannot hold belongs to nobody."""
    async with open_sqlite_catalog(make_context(tmp_path)) as catalog:
        for number in (-1, 2**63, 10**400):
            with pytest.raises(ModelNotFound):
                await catalog.get(number)


async def test_text_that_no_column_can_hold_is_kept(tmp_path: Path) -> None:
    """What a file says of itself may be no text at all; the document has it as it was."""
    facts = ModelFacts(architecture="ll\udcffama", quantization="\udc80")
    async with open_sqlite_catalog(make_context(tmp_path)) as catalog:
        added = await catalog.add(attrs.evolve(plain_model("qwen"), facts=facts))
        assert (await catalog.get(added.id)).facts == facts
