"""Changing a model by what it is now."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest

from gglib.domain.model import Model
from gglib.errors import InvalidValue, ModelExists, ModelNotFound
from gglib.ports.context import AdapterContext
from gglib.ports.model_catalog import ModelCatalog
from gglib.testing.contracts.backends import at_once
from gglib.testing.contracts.model_catalog.kit import CatalogPromises, OpenCatalog
from gglib.testing.contracts.samples import full_model, plain_model

__all__ = ["EditingPromises"]


class EditingPromises(CatalogPromises):
    """Who edits a model loses nothing that others have made of it."""

    async def test_edited_model_is_returned_and_kept(self, catalog: ModelCatalog) -> None:
        """The change is made to the model as it is, whole; names follow."""
        kept = await catalog.add(full_model("qwen", aliases=("q",)))
        seen: list[Model] = []

        def change(model: Model) -> Model:
            seen.append(model)
            return attrs.evolve(model, name="new", aliases=("n",), size_bytes=9)

        edited = await catalog.edit(kept.id, change)

        assert set(seen) == {kept}, "change must be given the model as it is"
        assert edited == change(kept), "edit() must return what change returned"
        assert await catalog.get(kept.id) == edited, "edit() must keep what change returned"
        assert (await catalog.add(plain_model("q"))).name == "q", "names it has lost must be free"

    async def test_edits_that_meet_are_all_kept(self, catalog: ModelCatalog) -> None:
        """Each begins with what the other has made."""
        kept = await catalog.add(plain_model())

        await at_once(lambda number: catalog.edit(kept.id, _tagged(number)))

        tags = (await catalog.get(kept.id)).tags
        assert sorted(tags) == sorted(map(str, range(10))), "no edit may undo another"

    async def test_edits_of_two_openings_are_all_kept(
        self, open_catalog: OpenCatalog, context: AdapterContext
    ) -> None:
        """Of two processes, too."""
        self.need_shared_openings()
        async with open_catalog(context) as one, open_catalog(context) as other:
            kept = await one.add(plain_model())

            await at_once(
                lambda number: (one if number % 2 else other).edit(kept.id, _tagged(number))
            )

            tags = (await one.get(kept.id)).tags
            assert sorted(tags) == sorted(map(str, range(10))), "no edit may undo another"

    async def test_edit_that_changes_nothing_is_no_change(self, catalog: ModelCatalog) -> None:
        """Who compares revisions is not told of it."""
        kept = await catalog.add(full_model())
        before = await catalog.revision()

        assert await catalog.edit(kept.id, attrs.evolve) == kept
        assert await catalog.revision() == before, "what is as it was is no change"

    async def test_edit_that_raises_changes_nothing(self, catalog: ModelCatalog) -> None:
        """The error is the caller's own."""
        kept = await catalog.add(plain_model())
        before = await catalog.revision()

        def refuse(model: Model) -> Model:
            return attrs.evolve(model, size_bytes=-1)

        with pytest.raises(InvalidValue):
            await catalog.edit(kept.id, refuse)

        assert await catalog.get(kept.id) == kept, "a refused edit() must change nothing"
        assert await catalog.revision() == before, "a refused edit() is no change"

    async def test_edit_to_a_taken_name_changes_nothing(self, catalog: ModelCatalog) -> None:
        """As of an update."""
        await catalog.add(plain_model("holder"))
        kept = await catalog.add(plain_model("qwen"))

        with pytest.raises(ModelExists) as caught:
            await catalog.edit(kept.id, lambda model: attrs.evolve(model, name="holder"))

        assert caught.value.holder == "holder", "ModelExists.holder must be the name of its model"
        assert await catalog.get(kept.id) == kept, "a refused edit() must change nothing"

    async def test_edit_of_no_model_is_refused(self, catalog: ModelCatalog) -> None:
        """And the change is not tried."""
        for model_id in (-1, 0, 5):
            with pytest.raises(ModelNotFound):
                await catalog.edit(model_id, _never)


def _tagged(number: int) -> Callable[[Model], Model]:
    return lambda model: attrs.evolve(model, tags=(*model.tags, str(number)))


def _never(_: Model) -> Model:
    raise AssertionError("there is no model to change")
