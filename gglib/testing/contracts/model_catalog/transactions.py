"""Calls that are made at once, are cancelled, or come from another opening."""

from __future__ import annotations

import attrs
import pytest

from gglib.domain.model import Model
from gglib.errors import ModelExists
from gglib.ports.context import AdapterContext
from gglib.ports.model_catalog import ModelCatalog
from gglib.testing.contracts.backends import CANCEL_AFTER, at_once, cancelled_after
from gglib.testing.contracts.model_catalog.kit import CatalogPromises, OpenCatalog
from gglib.testing.contracts.samples import full_model, plain_model

__all__ = ["TransactionPromises"]


class TransactionPromises(CatalogPromises):
    """Each call is one transaction: done whole, and durable, or not at all."""

    async def test_ten_models_addedat_once_are_all_kept(self, catalog: ModelCatalog) -> None:
        """None is lost, none shares an id, and every one moves the revision."""
        seen = {await catalog.revision()}

        async def add(number: int) -> None:
            await catalog.add(plain_model(f"model-{number}"))
            seen.add(await catalog.revision())

        await at_once(add)

        models = await catalog.list()
        assert [model.name for model in models] == [f"model-{number}" for number in range(10)], (
            "models that are added at once must all be kept"
        )
        assert len({model.id for model in models}) == 10, "each must have an id of its own"
        assert len(seen) > 1, "concurrent changes must move the revision"

    async def test_ten_models_changedat_once_are_all_changed(self, catalog: ModelCatalog) -> None:
        """Updates and removals of different models do not undo each other."""
        kept = [await catalog.add(plain_model(f"model-{number}")) for number in range(10)]
        changed = [attrs.evolve(model, size_bytes=99, aliases=(f"a{model.id}",)) for model in kept]

        async def change(number: int) -> None:
            if number % 2:
                await catalog.remove(kept[number].id)
            else:
                await catalog.update(changed[number])

        await at_once(change)

        assert await catalog.list() == changed[::2], "changes made at once must all be made"

    async def test_one_name_added_ten_timesat_once_goes_to_one(self, catalog: ModelCatalog) -> None:
        """Of those that want one name, one gets it and the others are told who."""
        kept: list[Model] = []
        refused: list[ModelExists] = []

        async def add(number: int) -> None:
            try:
                kept.append(await catalog.add(plain_model("wanted", size_bytes=number)))
            except ModelExists as error:
                refused.append(error)

        await at_once(add)

        assert await catalog.list() == kept, "of ten that want one name exactly one must get it"
        assert [error.holder for error in refused] == ["wanted"] * 9, "nine must be told who"

    async def test_name_asked_for_ten_timesat_once_has_one_id(self, catalog: ModelCatalog) -> None:
        """All get the same id, those that add the model too."""
        ids: set[int] = set()

        async def ask(number: int) -> None:
            if number == 5:
                ids.add((await catalog.add(plain_model("wanted"))).id)
            else:
                ids.add(await catalog.id_for_name("wanted"))

        await at_once(ask)

        assert len(ids) == 1, "a name must have one id, whoever asks at the same time"

    @pytest.mark.parametrize("steps", CANCEL_AFTER)
    async def test_cancelled_add_is_done_whole_or_not_at_all(
        self, catalog: ModelCatalog, steps: int
    ) -> None:
        """The model is there with its aliases, or neither is; the catalog works on."""
        before = await catalog.revision()
        await cancelled_after(steps, lambda: catalog.add(full_model("wanted", aliases="w")))

        models = await catalog.list()
        assert [model.name for model in models] in ([], ["wanted"]), "a call is one transaction"
        moved = await catalog.revision() != before
        assert moved == bool(models), "the revision must move if, and only if, the change was made"
        if models:
            with pytest.raises(ModelExists):
                await catalog.add(plain_model("w"))
        else:
            assert (await catalog.add(plain_model("w"))).name == "w", "no name may be half taken"

    @pytest.mark.parametrize("steps", CANCEL_AFTER)
    async def test_cancelled_update_is_done_whole_or_not_at_all(
        self, catalog: ModelCatalog, steps: int
    ) -> None:
        """Fields and names are all the new ones or all the old ones; the catalog works on."""
        old = await catalog.add(plain_model("qwen", aliases=("old",)))
        new = attrs.evolve(old, name="new", aliases=("newer",), size_bytes=9)

        await cancelled_after(steps, lambda: catalog.update(new))

        found = await catalog.get(old.id)
        assert found in (old, new), "a call is one transaction: a model is the old or the new one"
        free, taken = ("newer", "old") if found == old else ("old", "newer")
        assert (await catalog.add(plain_model(free))).name == free, "no name may be half taken"
        with pytest.raises(ModelExists):
            await catalog.add(plain_model(taken))

    @pytest.mark.parametrize("steps", CANCEL_AFTER)
    async def test_cancelled_remove_is_done_whole_or_not_at_all(
        self, catalog: ModelCatalog, steps: int
    ) -> None:
        """The model is there or not, and its names with it; the catalog works on."""
        kept = await catalog.add(plain_model("qwen", aliases=("q",)))

        await cancelled_after(steps, lambda: catalog.remove(kept.id))

        if await catalog.list():
            with pytest.raises(ModelExists):
                await catalog.add(plain_model("q"))
            await catalog.remove(kept.id)
        again = await catalog.add(plain_model("qwen", aliases=("q",)))
        assert await catalog.list() == [again], "a cancelled remove() must leave no name behind"

    async def test_catalog_opened_again_has_its_models(
        self, open_catalog: OpenCatalog, context: AdapterContext
    ) -> None:
        """A call is durable when it returns: models, ids and revision outlive the opening."""
        self.need_shared_openings()
        async with open_catalog(context) as first:
            kept = await first.add(full_model())
            reserved = await first.id_for_name("declared")
            gone = await first.add(plain_model("gone"))
            await first.remove(gone.id)
            revision = await first.revision()

        async with open_catalog(context) as second:
            assert await second.list() == [kept], "models must outlive the opening"
            assert await second.id_for_name("declared") == reserved, "ids must outlive the opening"
            assert await second.id_for_name("gone") == gone.id, "ids must outlive the opening"
            assert await second.revision() == revision, "opening is no change"

    async def test_change_is_seen_through_another_opening(
        self, open_catalog: OpenCatalog, context: AdapterContext
    ) -> None:
        """What one has done when its call returns, another one sees, revision included."""
        self.need_shared_openings()
        async with open_catalog(context) as one, open_catalog(context) as two:
            before = await two.revision()
            kept = await one.add(plain_model("qwen"))
            assert await two.get(kept.id) == kept, "other openings must see what was added"
            assert await two.revision() != before, "the revision moves with anybody's change"
            await two.remove(kept.id)
            assert await one.list() == [], "other openings must see what was removed"

    async def test_two_openings_write_side_by_side(
        self, open_catalog: OpenCatalog, context: AdapterContext
    ) -> None:
        """Writers of two openings wait for each other; none is lost or refused."""
        self.need_shared_openings()
        async with open_catalog(context) as one, open_catalog(context) as two:

            async def add(number: int) -> None:
                await (one, two)[number % 2].add(plain_model(f"model-{number}"))

            await at_once(add)
            models = await one.list()

        assert len({model.id for model in models}) == 10, "no opening may lose another's model"

    async def test_one_name_wanted_by_two_openings_goes_to_one(
        self, open_catalog: OpenCatalog, context: AdapterContext
    ) -> None:
        """Of two openings that add one name at once, one is told that it is taken."""
        self.need_shared_openings()
        outcomes: list[str] = []
        async with open_catalog(context) as one, open_catalog(context) as two:

            async def add(number: int) -> None:
                try:
                    await (one, two)[number % 2].add(plain_model("wanted"))
                    outcomes.append("kept")
                except ModelExists:
                    outcomes.append("taken")

            await at_once(add)

        assert sorted(outcomes) == ["kept"] + ["taken"] * 9, "a name is one model's, everywhere"
