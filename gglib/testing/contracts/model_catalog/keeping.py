"""What a catalog keeps, and what it says of what it has not."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from gglib.errors import ModelNotFound
from gglib.ports.model_catalog import ModelCatalog
from gglib.testing.contracts.model_catalog.kit import CatalogPromises
from gglib.testing.contracts.samples import LARGEST, full_model, plain_model, random_model, seeded

__all__ = ["KeepingPromises"]

#: Ids that no catalog has given when it is empty.
_WRONG_IDS = (-1, 0, 5, LARGEST)


class KeepingPromises(CatalogPromises):
    """A model that was added is there, whole, until it is removed."""

    async def test_opened_catalog_is_of_the_port(self, catalog: ModelCatalog) -> None:
        """The factory's context manager gives a ``ModelCatalog``."""
        assert isinstance(catalog, ModelCatalog), "bootstrap takes subclasses of ModelCatalog only"

    async def test_new_catalog_is_empty(self, catalog: ModelCatalog) -> None:
        """A fresh data directory has no models."""
        assert await catalog.list() == [], "list() of a new catalog must be empty"

    async def test_whole_catalog_has_no_damage(self, catalog: ModelCatalog) -> None:
        """Neither a new one nor one with models."""
        assert list(await catalog.check()) == []
        await catalog.add(full_model())
        assert list(await catalog.check()) == [], "check() must find nothing in a whole catalog"

    async def test_added_model_comes_back_whole(self, catalog: ModelCatalog) -> None:
        """Every field survives: texts of any script, file names that are no text, numbers."""
        full = full_model()

        kept = await catalog.add(full)

        same = attrs.evolve(full, id=kept.id)
        assert kept == same, "add() must return the model as it was given, with its id"
        assert await catalog.get(kept.id) == same, "get() must return every field as it was added"
        assert await catalog.list() == [same], "list() must return every field as it was added"

    async def test_plain_model_comes_back_plain(self, catalog: ModelCatalog) -> None:
        """What was not said is not filled in."""
        kept = await catalog.add(plain_model())

        assert await catalog.get(kept.id) == plain_model(id=kept.id), (
            "a field that was left at its default must come back at its default"
        )

    async def test_any_model_comes_back_whole(self, catalog: ModelCatalog) -> None:
        """Models with any fields set, added and then changed, are what they were given as."""
        source = seeded(2026)
        for number in range(10):
            given = random_model(source, f"model-{number}")
            kept = await catalog.add(given)
            assert kept == attrs.evolve(given, id=kept.id), "add() must return what it was given"
            assert await catalog.get(kept.id) == kept, "get() must return what add() returned"
            changed = attrs.evolve(random_model(source, f"model-{number}"), id=kept.id)
            await catalog.update(changed)
            assert await catalog.get(kept.id) == changed, "get() must return what update() wrote"

    async def test_id_of_the_added_model_is_ignored(self, catalog: ModelCatalog) -> None:
        """The catalog gives ids; what the caller wrote there does not matter."""
        first = await catalog.add(plain_model("first"))
        second = await catalog.add(plain_model("second", id=first.id))

        assert first.id != second.id, "add() must give each model an id of its own"
        assert await catalog.get(first.id) == first, "add() must not replace another model"

    async def test_models_are_listed_by_name(self, catalog: ModelCatalog) -> None:
        """The order is that of the names' code points, whatever the order of adding."""
        for name in ("b", "\u00e9", "a", "B", "a/b", "e\u0301"):
            await catalog.add(plain_model(name))
        renamed = await catalog.add(plain_model("zz"))
        await catalog.update(attrs.evolve(renamed, name="A"))

        names = [model.name for model in await catalog.list()]
        assert names == ["A", "B", "a", "a/b", "b", "e\u0301", "\u00e9"], (
            "list() must be in the order of the names, by code points"
        )

    async def test_names_that_differ_by_case_alone_are_two(self, catalog: ModelCatalog) -> None:
        """Names are compared as they are."""
        lower = await catalog.add(plain_model("qwen", aliases=("q",)))
        upper = await catalog.add(plain_model("QWEN", aliases=("Q",)))

        assert lower.id != upper.id, "'qwen' and 'QWEN' are two names"

    @pytest.mark.parametrize("model_id", _WRONG_IDS)
    async def test_wrong_id_is_not_found(self, catalog: ModelCatalog, model_id: int) -> None:
        """Reading and removing what was never there says so, and is no change."""
        before = await catalog.revision()

        with pytest.raises(ModelNotFound) as caught:
            await catalog.get(model_id)
        with pytest.raises(ModelNotFound):
            await catalog.remove(model_id)

        assert str(model_id) in caught.value.name, "ModelNotFound must say which id it was"
        assert await catalog.revision() == before, "a refused remove() is no change"

    async def test_model_without_an_entry_is_not_updated(self, catalog: ModelCatalog) -> None:
        """An update adds nothing, and takes no name."""
        before = await catalog.revision()

        with pytest.raises(ModelNotFound):
            await catalog.update(plain_model("qwen", id=5))

        assert await catalog.list() == [], "update() of what is not there must add nothing"
        assert await catalog.revision() == before, "a refused update() is no change"

    async def test_removed_model_is_gone(self, catalog: ModelCatalog) -> None:
        """It is not listed, read, changed or removed again; others stay."""
        first = await catalog.add(plain_model("first"))
        other = await catalog.add(plain_model("other"))

        await catalog.remove(first.id)

        assert await catalog.list() == [other], "remove() must forget that model, and no other"
        with pytest.raises(ModelNotFound):
            await catalog.get(first.id)
        with pytest.raises(ModelNotFound):
            await catalog.update(first)
        with pytest.raises(ModelNotFound):
            await catalog.remove(first.id)

    async def test_removing_a_model_leaves_its_file(
        self, catalog: ModelCatalog, tmp_path: Path
    ) -> None:
        """Files are not touched."""
        file = tmp_path / "m.gguf"
        file.write_bytes(b"GGUF")
        kept = await catalog.add(plain_model(paths=[file]))

        await catalog.remove(kept.id)

        assert file.read_bytes() == b"GGUF", "remove() must not touch files"

    async def test_every_change_moves_the_revision(self, catalog: ModelCatalog) -> None:
        """No change leaves it as it was at any time before."""
        seen = [await catalog.revision()]
        kept = await catalog.add(plain_model())
        seen.append(await catalog.revision())
        await catalog.update(attrs.evolve(kept, size_bytes=8))
        seen.append(await catalog.revision())
        await catalog.remove(kept.id)
        seen.append(await catalog.revision())
        await catalog.add(plain_model())
        seen.append(await catalog.revision())

        assert len(set(seen)) == len(seen), "each change must give a revision never seen before"

    async def test_reading_leaves_the_revision(self, catalog: ModelCatalog) -> None:
        """Who compares revisions is not told of changes that were none."""
        kept = await catalog.add(plain_model())
        before = await catalog.revision()

        await catalog.list()
        await catalog.get(kept.id)
        await catalog.id_for_name(kept.name)

        assert await catalog.revision() == before, "reading must not move the revision"
