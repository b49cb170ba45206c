"""The SQLite catalog keeps the port's promises, on both event loops and between processes."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from gglib.domain.inference import InferenceConfig
from gglib.domain.model import Capability, Model, ModelDefaults, ModelFacts, ModelOrigin, Profile
from gglib.errors import DatabaseCorrupt, ModelExists, ModelNotFound
from gglib.ports.model_catalog import ModelCatalog
from gglib.testing.contexts import make_context
from gglib_adapters.catalog.sqlite import open_sqlite_catalog


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run every async test here on both loops."""
    return str(request.param)


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[ModelCatalog]:
    """Open a catalog in a fresh data directory."""
    async with open_sqlite_catalog(make_context(tmp_path)) as opened:
        yield opened


def model(name: str = "qwen", **changes: Any) -> Model:
    """Return a plain model of that name."""
    fields: dict[str, Any] = {"id": 0, "name": name, "paths": [f"/m/{name}.gguf"], "size_bytes": 7}
    return Model(**fields | changes)


async def test_added_model_comes_back_whole(catalog: ModelCatalog) -> None:
    """Every field survives the way to the disk and back."""
    full = model(
        "org/qwen2.5:7b",
        paths=["/m/a-00001-of-00002.gguf", "/m/ü \udcff.gguf"],
        facts=ModelFacts(
            architecture="qwen2",
            quantization="Q4_K_M",
            parameters=7_600_000_000,
            chat_template="{{ messages }}\n",
            capabilities=frozenset({Capability.CHAT, Capability.TOOLS}),
        ),
        aliases=("small", "模型"),
        tags=("work",),
        profiles=(Profile(name="cold", inference=InferenceConfig(temperature=0.1)),),
        defaults=ModelDefaults(server={"context_size": 8192}, ttl_s=30.5, pinned=True),
        origin=ModelOrigin(kind="hub", repository="org/qwen", revision="main", sha256="ab"),
        added_at=1_700_000_000.123456,
    )

    kept = await catalog.add(full)

    assert kept == attrs.evolve(full, id=kept.id)
    assert await catalog.get(kept.id) == kept
    assert await catalog.list() == [kept]


async def test_catalog_opened_again_has_its_models(tmp_path: Path) -> None:
    """What was kept outlives the process's connection."""
    async with open_sqlite_catalog(make_context(tmp_path)) as first:
        kept = await first.add(model())

    async with open_sqlite_catalog(make_context(tmp_path)) as second:
        assert await second.get(kept.id) == kept


async def test_models_are_listed_by_name(catalog: ModelCatalog) -> None:
    """The order is that of the names, whatever the order of adding."""
    for name in ("b", "é", "a", "B"):
        await catalog.add(model(name))

    assert [kept.name for kept in await catalog.list()] == ["B", "a", "b", "é"]


@pytest.mark.parametrize(
    ("newcomer", "taken"),
    [
        (model("qwen"), "qwen"),
        (model("q"), "q"),
        (model("other", aliases=("qwen",)), "qwen"),
        (model("other", aliases=("free", "q")), "q"),
    ],
    ids=["name-name", "name-alias", "alias-name", "alias-alias"],
)
async def test_taken_name_is_refused_with_its_holder(
    catalog: ModelCatalog, newcomer: Model, taken: str
) -> None:
    """Names and aliases share one space, and a refusal changes nothing."""
    await catalog.add(model("qwen", aliases=("q",)))
    before = await catalog.revision()

    with pytest.raises(ModelExists) as caught:
        await catalog.add(newcomer)

    assert (caught.value.name, caught.value.holder) == (taken, "qwen")
    assert len(await catalog.list()) == 1
    assert await catalog.revision() == before


async def test_update_to_taken_name_changes_nothing(catalog: ModelCatalog) -> None:
    """A refused update is undone whole, the columns it had written too."""
    await catalog.add(model("qwen"))
    other = await catalog.add(model("other", aliases=("o",)))

    with pytest.raises(ModelExists):
        await catalog.update(attrs.evolve(other, name="qwen", size_bytes=9, aliases=()))

    assert await catalog.get(other.id) == other
    with pytest.raises(ModelExists):
        await catalog.add(model("o"))


async def test_update_may_keep_and_swap_its_own_names(catalog: ModelCatalog) -> None:
    """A model is not in its own way."""
    kept = await catalog.add(model("qwen", aliases=("a", "b")))
    changed = attrs.evolve(kept, name="a", aliases=("qwen", "b", "b"), size_bytes=8)

    await catalog.update(changed)

    assert await catalog.get(kept.id) == changed


async def test_dropped_alias_is_free_again(catalog: ModelCatalog) -> None:
    """An alias goes with the update, or the model, that drops it."""
    first = await catalog.add(model("first", aliases=("a", "b")))
    await catalog.update(attrs.evolve(first, aliases=("b",)))
    await catalog.add(model("a"))
    await catalog.remove(first.id)

    assert (await catalog.add(model("b"))).name == "b"


async def test_missing_model_is_not_found(catalog: ModelCatalog) -> None:
    """Reading, changing and removing what is not there says so, and counts no change."""
    before = await catalog.revision()

    with pytest.raises(ModelNotFound):
        await catalog.get(5)
    with pytest.raises(ModelNotFound):
        await catalog.update(model(id=5))
    with pytest.raises(ModelNotFound):
        await catalog.remove(5)

    assert await catalog.revision() == before


async def test_removed_model_added_again_has_its_id(catalog: ModelCatalog) -> None:
    """A name keeps its id while nobody else bears it."""
    first = await catalog.add(model("qwen"))
    await catalog.remove(first.id)
    await catalog.add(model("other"))

    assert (await catalog.add(model("qwen", size_bytes=9))).id == first.id


async def test_declared_name_gets_one_id_for_ever(catalog: ModelCatalog) -> None:
    """An id reserved for a declared model is the one that a row of that name gets."""
    reserved = await catalog.id_for_name("declared")
    kept = await catalog.add(model("qwen"))

    assert await catalog.id_for_name("declared") == reserved != kept.id
    assert await catalog.id_for_name("qwen") == kept.id
    assert (await catalog.add(model("declared"))).id == reserved


async def test_rename_takes_the_id_along(catalog: ModelCatalog) -> None:
    """The model stays the same one; its old name is a new name to whoever takes it."""
    kept = await catalog.add(model("old"))

    await catalog.update(attrs.evolve(kept, name="new"))

    assert (await catalog.get(kept.id)).name == "new"
    assert await catalog.id_for_name("new") == kept.id
    assert (await catalog.add(model("old"))).id != kept.id


async def test_rename_to_reserved_name_retires_the_reservation(catalog: ModelCatalog) -> None:
    """A name has one id: the renamed model's, and the reserved one is never given again."""
    reserved = await catalog.id_for_name("new")
    kept = await catalog.add(model("old"))

    await catalog.update(attrs.evolve(kept, name="new"))

    assert await catalog.id_for_name("new") == kept.id
    assert await catalog.id_for_name("another") not in {kept.id, reserved}


async def test_every_change_moves_the_revision(catalog: ModelCatalog) -> None:
    """Each change counts, and reading does not."""
    seen = [await catalog.revision()]
    kept = await catalog.add(model())
    seen.append(await catalog.revision())
    await catalog.update(attrs.evolve(kept, size_bytes=8))
    seen.append(await catalog.revision())
    await catalog.remove(kept.id)
    seen.append(await catalog.revision())
    await catalog.list()
    await catalog.id_for_name("qwen")

    assert await catalog.revision() == seen[-1]
    assert len(set(seen)) == len(seen)


async def test_two_catalogs_on_one_directory_write_side_by_side(tmp_path: Path) -> None:
    """Writers of two connections wait for each other; none is lost or refused."""
    async with (
        open_sqlite_catalog(make_context(tmp_path)) as one,
        open_sqlite_catalog(make_context(tmp_path)) as two,
        anyio.create_task_group() as tasks,
    ):
        before = await one.revision()
        for number in range(20):
            tasks.start_soon(one.add, model(f"one-{number}"))
            tasks.start_soon(two.add, model(f"two-{number}"))

    async with open_sqlite_catalog(make_context(tmp_path)) as catalog:
        kept = await catalog.list()
        assert len({found.id for found in kept}) == 40
        assert await catalog.revision() == before + 40


async def test_same_name_added_at_once_goes_to_one(tmp_path: Path) -> None:
    """Of two that add one name at once, one is told that it is taken."""
    outcomes: list[str] = []

    async def add(catalog: ModelCatalog) -> None:
        try:
            await catalog.add(model("wanted"))
            outcomes.append("kept")
        except ModelExists:
            outcomes.append("taken")

    async with (
        open_sqlite_catalog(make_context(tmp_path)) as one,
        open_sqlite_catalog(make_context(tmp_path)) as two,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(add, one)
        tasks.start_soon(add, two)

    assert sorted(outcomes) == ["kept", "taken"]


@pytest.mark.parametrize("document", ["{", '{"unknown": 1}', "[]"])
async def test_row_that_is_no_model_names_the_model(tmp_path: Path, document: str) -> None:
    """A damaged row is a damaged database, and the message says which row."""
    async with open_sqlite_catalog(make_context(tmp_path)) as catalog:
        await catalog.add(model("qwen"))
        with closing(sqlite3.connect(tmp_path / "gglib.db")) as direct, direct:
            direct.execute("UPDATE models SET document = ?", (document,))

        with pytest.raises(DatabaseCorrupt, match="model 'qwen'"):
            await catalog.list()
