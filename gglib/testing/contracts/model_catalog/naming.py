"""Whose a name is, and which id it has."""

from __future__ import annotations

import attrs
import pytest

from gglib.domain.model import Model
from gglib.errors import ModelExists, ModelNotFound
from gglib.ports.model_catalog import ModelCatalog
from gglib.testing.contracts.model_catalog.kit import CatalogPromises
from gglib.testing.contracts.samples import plain_model

__all__ = ["NamingPromises"]


class NamingPromises(CatalogPromises):
    """Names, aliases and ids lead to one model each."""

    @pytest.mark.parametrize(
        ("newcomer", "taken"),
        [
            (plain_model("qwen"), "qwen"),
            (plain_model("q"), "q"),
            (plain_model("other", aliases=("qwen",)), "qwen"),
            (plain_model("other", aliases=("free", "q")), "q"),
        ],
        ids=["name-name", "name-alias", "alias-name", "alias-alias"],
    )
    async def test_taken_name_is_refused_with_its_holder(
        self, catalog: ModelCatalog, newcomer: Model, taken: str
    ) -> None:
        """Names and aliases share one space, and a refusal changes nothing."""
        holder = await catalog.add(plain_model("qwen", aliases=("q",)))
        before = await catalog.revision()

        with pytest.raises(ModelExists) as caught:
            await catalog.add(newcomer)

        assert caught.value.name == taken, "ModelExists.name must be the name that is taken"
        assert caught.value.holder == "qwen", "ModelExists.holder must be the name of its model"
        assert await catalog.list() == [holder], "a refused add() must change nothing"
        assert await catalog.revision() == before, "a refused add() is no change"

    async def test_refused_model_leaves_its_other_names_free(self, catalog: ModelCatalog) -> None:
        """A refused add is undone whole: none of its names is taken."""
        await catalog.add(plain_model("qwen"))
        with pytest.raises(ModelExists):
            await catalog.add(plain_model("other", aliases=("free", "qwen")))

        for name in ("other", "free"):
            kept = await catalog.add(plain_model(name))
            assert kept.name == name, "a refused add() must not keep its names"

    @pytest.mark.parametrize(
        ("change", "taken"),
        [
            ({"name": "qwen"}, "qwen"),
            ({"name": "q"}, "q"),
            ({"aliases": ("o", "qwen")}, "qwen"),
            ({"aliases": ("q",)}, "q"),
        ],
        ids=["name-name", "name-alias", "alias-name", "alias-alias"],
    )
    async def test_update_to_a_taken_name_changes_nothing(
        self, catalog: ModelCatalog, change: dict[str, object], taken: str
    ) -> None:
        """A refused update is undone whole, what it changed beside the names too."""
        holder = await catalog.add(plain_model("qwen", aliases=("q",)))
        other = await catalog.add(plain_model("other", aliases=("o",)))
        before = await catalog.revision()

        with pytest.raises(ModelExists) as caught:
            await catalog.update(attrs.evolve(other, size_bytes=9, **change))  # type: ignore[arg-type]

        assert (caught.value.name, caught.value.holder) == (taken, "qwen"), (
            "ModelExists must carry the taken name and the name of the model that has it"
        )
        assert await catalog.list() == [other, holder], "a refused update() must change nothing"
        assert await catalog.revision() == before, "a refused update() is no change"
        with pytest.raises(ModelExists):
            await catalog.add(plain_model("o"))

    async def test_update_may_keep_and_swap_its_own_names(self, catalog: ModelCatalog) -> None:
        """A model is not in its own way."""
        kept = await catalog.add(plain_model("qwen", aliases=("a", "b", "qwen")))
        changed = attrs.evolve(kept, name="a", aliases=("qwen", "b", "b"), size_bytes=8)

        await catalog.update(changed)

        assert await catalog.get(kept.id) == changed, (
            "update() must accept a model's own names, in any order and number"
        )

    async def test_updated_aliases_are_taken_and_dropped_ones_free(
        self, catalog: ModelCatalog
    ) -> None:
        """An update's aliases count from then on, and those that it leaves out are free."""
        first = await catalog.add(plain_model("first", aliases=("a", "b")))

        await catalog.update(attrs.evolve(first, aliases=("b", "c")))

        assert (await catalog.add(plain_model("a"))).name == "a", "a dropped alias must be free"
        for name in ("b", "c"):
            with pytest.raises(ModelExists) as caught:
                await catalog.add(plain_model(name))
            assert caught.value.holder == "first", "an updated model's aliases must be its own"

    async def test_removed_model_frees_its_names(self, catalog: ModelCatalog) -> None:
        """Name and aliases are for others to take, as aliases too."""
        first = await catalog.add(plain_model("first", aliases=("a",)))
        await catalog.remove(first.id)

        other = await catalog.add(plain_model("other", aliases=("first", "a")))

        assert other.aliases == ("first", "a"), "a removed model's names must be free"
        with pytest.raises(ModelExists) as caught:
            await catalog.add(plain_model("first"))
        assert (caught.value.name, caught.value.holder) == ("first", "other"), (
            "an alias must be taken even where the name once was another model's"
        )

    async def test_removed_model_keeps_its_id_when_it_is_added_again(
        self, catalog: ModelCatalog
    ) -> None:
        """A name keeps its id for ever, however many others came between."""
        first = await catalog.add(plain_model("qwen"))
        await catalog.remove(first.id)
        other = await catalog.add(plain_model("other"))

        again = await catalog.add(plain_model("qwen", size_bytes=9))

        assert again.id == first.id, "a name must keep its id when its model is removed"
        assert other.id != first.id, "the id of a removed model's name must go to no other name"

    async def test_new_name_gets_one_id_for_ever(self, catalog: ModelCatalog) -> None:
        """An id that was asked for is the one that a model of that name gets."""
        reserved = await catalog.id_for_name("declared")
        kept = await catalog.add(plain_model("qwen"))

        assert await catalog.id_for_name("declared") == reserved, "id_for_name() must repeat itself"
        assert kept.id != reserved, "an id that belongs to a name must go to no other name"
        assert await catalog.id_for_name("qwen") == kept.id, "a kept model's name has its id"
        assert (await catalog.add(plain_model("declared"))).id == reserved, (
            "add() must use the id that id_for_name() gave"
        )

    async def test_name_of_a_removed_model_has_its_id_still(self, catalog: ModelCatalog) -> None:
        """``id_for_name`` and ``add`` agree about names whose models are gone."""
        kept = await catalog.add(plain_model("qwen"))
        await catalog.remove(kept.id)

        assert await catalog.id_for_name("qwen") == kept.id, "a name must keep its id for ever"

    async def test_id_without_a_model_is_not_found(self, catalog: ModelCatalog) -> None:
        """An id that only belongs to a name leads to no model, and the name to no entry."""
        reserved = await catalog.id_for_name("declared")

        assert await catalog.list() == [], "id_for_name() must add no model"
        with pytest.raises(ModelNotFound):
            await catalog.get(reserved)
        with pytest.raises(ModelNotFound):
            await catalog.update(plain_model("declared", id=reserved))
        with pytest.raises(ModelNotFound):
            await catalog.remove(reserved)

    async def test_rename_takes_the_id_along(self, catalog: ModelCatalog) -> None:
        """The model stays the same one; its old name is a new name to whoever takes it."""
        kept = await catalog.add(plain_model("old"))

        await catalog.update(attrs.evolve(kept, name="new"))

        assert (await catalog.get(kept.id)).name == "new", "update() must keep the model's id"
        assert await catalog.id_for_name("new") == kept.id, "the new name must have the id"
        assert (await catalog.add(plain_model("old"))).id != kept.id, "an id is one model's only"

    async def test_rename_to_a_name_with_an_id_gives_none_twice(
        self, catalog: ModelCatalog
    ) -> None:
        """The renamed model keeps its own id; the one that the name had goes to nobody."""
        reserved = await catalog.id_for_name("new")
        kept = await catalog.add(plain_model("old"))

        await catalog.update(attrs.evolve(kept, name="new"))

        assert await catalog.id_for_name("new") == kept.id, "update() must keep the model's id"
        others = {await catalog.id_for_name(name) for name in ("old", "another")}
        assert not others & {kept.id, reserved}, "an id must never be given to a second name"
