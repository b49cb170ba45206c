"""What can be changed of a model, and what cannot."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import attrs
import pytest
from support.gguf_files import write_model
from support.houses import open_model_house

from gglib.domain.inference import InferenceConfig
from gglib.domain.model import Model, ModelOrigin
from gglib.errors import InvalidRequest, InvalidValue, ModelExists, ModelNotFound
from gglib.services.models import Declaration, ModelService
from gglib.services.verifying import FileState

pytestmark = pytest.mark.anyio

#: One of each change.
CHANGES: dict[str, Callable[[ModelService, str], Awaitable[Model]]] = {
    "rename": lambda models, name: models.rename(name, "new"),
    "alias": lambda models, name: models.add_aliases(name, ["x"]),
    "tag": lambda models, name: models.add_tags(name, ["x"]),
    "set": lambda models, name: models.configure(name, {"pinned": True}),
    "profile": lambda models, name: models.set_profile(name, "p", {"strip": ("seed",)}),
    "remove": lambda models, name: models.remove(name),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_model(tmp_path / "m.gguf")


async def test_renamed_model_keeps_its_id_and_what_is_set(tmp_path: Path, path: Path) -> None:
    """The old name is free; an alias may become the name."""
    async with open_model_house(tmp_path) as house:
        model = await house.models.add(path, name="old", aliases=["a", "b"])
        renamed = await house.models.rename("b", "a")
        assert (renamed.id, renamed.name, renamed.aliases) == (model.id, "a", ("b",))
        with pytest.raises(ModelNotFound):
            await house.models.resolve("old")
        assert house.events.names == ["model.added", "model.changed"]


async def test_aliases_come_and_go(tmp_path: Path, path: Path) -> None:
    """One that it has is no error; one that it lacks is, and names those it has."""
    async with open_model_house(tmp_path) as house:
        await house.models.add(path, name="m")
        model = await house.models.add_aliases("m", ["x", "y", "x", "m"])
        assert model.aliases == ("x", "y")
        assert (await house.models.add_aliases("m", ["x"])).aliases == ("x", "y")
        with pytest.raises(InvalidRequest, match="no alias 'z'; it has 'x', 'y'"):
            await house.models.remove_aliases("m", ["x", "z"])
        assert (await house.models.remove_aliases("y", ["x"])).aliases == ("y",)
        with pytest.raises(InvalidValue):
            await house.models.add_aliases("m", ["../x"])


async def test_tags_are_any_words(tmp_path: Path, path: Path) -> None:
    """That can be printed."""
    async with open_model_house(tmp_path) as house:
        await house.models.add(path, name="m")
        assert (await house.models.add_tags("m", ["für ada", "b", "b"])).tags == ("für ada", "b")
        assert (await house.models.remove_tags("m", ["b"])).tags == ("für ada",)
        with pytest.raises(InvalidRequest, match="no tag 'b'"):
            await house.models.remove_tags("m", ["b"])
        for wrong in ("", " x", "a\nb", "x" * 101):
            with pytest.raises(InvalidValue, match="tag is"):
                await house.models.add_tags("m", [wrong])


async def test_settings_are_set_and_cleared(tmp_path: Path, path: Path) -> None:
    """A change that is wrong in one key changes none."""
    async with open_model_house(tmp_path) as house:
        await house.models.add(path, name="m")
        await house.models.configure("m", {"context_size": 4096, "inference.top_k": 5})
        with pytest.raises(InvalidValue):
            await house.models.configure("m", {"pinned": True, "context_size": 0})
        model = await house.models.configure("m", {"context_size": None, "ttl_s": 5.0})
        assert model.defaults.server == {}
        assert (model.defaults.inference, model.defaults.ttl_s, model.defaults.pinned) == (
            InferenceConfig(top_k=5),
            5.0,
            False,
        )


async def test_profile_is_made_changed_found_and_removed(tmp_path: Path, path: Path) -> None:
    """Requests ask for it as NAME:PROFILE."""
    async with open_model_house(tmp_path) as house:
        await house.models.add(path, name="m")
        await house.models.set_profile("m", "cold", {"inference.temperature": 0.0})
        await house.models.set_profile("m", "cold", {"inference.top_k": 1})
        found = (await house.models.resolve("m:cold")).profile
        assert found is not None
        assert found.inference == InferenceConfig(temperature=0.0, top_k=1)
        with pytest.raises(InvalidRequest, match="no profile 'hot'; it has 'cold'"):
            await house.models.remove_profile("m", "hot")
        assert (await house.models.remove_profile("m", "cold")).profiles == ()
        with pytest.raises(InvalidValue):
            await house.models.set_profile("m", "", {"inference.top_k": 1})


@pytest.mark.parametrize("kind", CHANGES)
async def test_declared_model_is_changed_in_its_file_alone(
    tmp_path: Path, path: Path, kind: str
) -> None:
    """Every change says so, and changes nothing."""
    async with open_model_house(tmp_path, Declaration(name="m", path=path)) as house:
        with pytest.raises(InvalidRequest, match="declared in the configuration file; change it"):
            await CHANGES[kind](house.models, "m")
        assert await house.catalog.list() == []


@pytest.mark.parametrize("kind", CHANGES)
async def test_change_of_nobody_names_who_was_asked_for(
    tmp_path: Path, path: Path, kind: str
) -> None:
    """With the close names."""
    async with open_model_house(tmp_path) as house:
        await house.models.add(path, name="qwen")
        with pytest.raises(ModelNotFound) as caught:
            await CHANGES[kind](house.models, "qwem")
        assert caught.value.close_names == ("qwen",)


async def test_taken_names_are_refused(tmp_path: Path, path: Path) -> None:
    """Those of declared models, too."""
    other = write_model(tmp_path / "other.gguf")
    declared = Declaration(name="declared", path=other, aliases=("d",))
    async with open_model_house(tmp_path, declared) as house:
        await house.models.add(path, name="m")
        await house.models.add(other, name="o", aliases=["p"])
        for taken in ("o", "p", "declared", "d"):
            with pytest.raises(ModelExists):
                await house.models.rename("m", taken)
            with pytest.raises(ModelExists):
                await house.models.add_aliases("m", [taken])


async def test_changes_of_two_processes_are_both_kept(tmp_path: Path, path: Path) -> None:
    """Neither writes back what it read long ago."""
    async with open_model_house(tmp_path) as one, open_model_house(tmp_path) as other:
        await one.models.add(path, name="m")
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                house = one if number % 2 else other
                tasks.start_soon(house.models.add_tags, "m", [f"t{number}"])
        assert len((await one.models.resolve("m")).model.tags) == 10


async def test_only_fetched_files_are_deleted(tmp_path: Path, path: Path) -> None:
    """What lay there before gglib came stays; so does what another model needs."""
    async with open_model_house(tmp_path) as house:
        model = await house.models.add(path, name="m")
        with pytest.raises(InvalidRequest, match="gglib did not fetch"):
            await house.models.remove("m", delete_files=True)
        fetched = ModelOrigin(kind="hub", fetched=True)
        await house.catalog.update(attrs.evolve(model, origin=fetched))
        twin = await house.models.add(path, name="twin")
        with pytest.raises(InvalidRequest, match=r"model 'twin' uses .*m\.gguf, too"):
            await house.models.remove("m", delete_files=True)
        assert await house.names() == ["m", "twin"]
        await house.models.remove(twin.name)
        await house.models.remove("m", delete_files=True)
        assert (path.exists(), await house.names()) == (False, [])


async def test_files_are_verified_against_what_was_recorded(tmp_path: Path, path: Path) -> None:
    """First recorded, then compared; a flipped bit shows, though size and time are the same."""
    async with open_model_house(tmp_path) as house:
        await house.models.add(path, name="m")
        told: list[int] = []
        first = await house.models.verify("m", on_bytes=told.append)
        assert ([each.state for each in first.files], first.intact) == ([FileState.RECORDED], True)
        assert sum(told) == path.stat().st_size
        assert first.model.marks[0].sha256 == first.files[0].sha256
        assert (await house.models.verify("m")).files[0].state is FileState.INTACT

        status, content = path.stat(), bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        damaged = await house.models.verify("m")
        assert (damaged.files[0].state, damaged.intact) == (FileState.DAMAGED, False)
        assert damaged.files[0].recorded_sha256 == first.files[0].sha256
        path.touch()
        assert (await house.models.verify("m")).files[0].state is FileState.CHANGED
        assert (await house.models.verify("m", accept=True)).intact
        assert (await house.models.verify("m")).files[0].state is FileState.INTACT


async def test_file_that_was_written_to_before_it_was_verified_is_told(
    tmp_path: Path, path: Path
) -> None:
    """Its sum is not recorded as if it were what was added."""
    async with open_model_house(tmp_path) as house:
        await house.models.add(path, name="m")
        path.write_bytes(path.read_bytes() + bytes(32))
        found = await house.models.verify("m")
        assert (found.files[0].state, found.model.marks[0].sha256) == (FileState.CHANGED, None)


async def test_missing_shard_is_told_and_the_others_verified(tmp_path: Path) -> None:
    """Nothing is recorded of a model that is not whole."""
    shards = [write_model(tmp_path / f"b-0000{n}-of-00002.gguf", names=[f"t{n}"]) for n in (1, 2)]
    async with open_model_house(tmp_path) as house:
        await house.models.add(shards[0], name="b")
        shards[1].unlink()
        found = await house.models.verify("b")
        assert [each.state for each in found.files] == [FileState.RECORDED, FileState.MISSING]
        assert (found.intact, found.model.marks[0].sha256) == (False, None)


async def test_fetched_file_is_compared_with_the_hubs_sum(tmp_path: Path, path: Path) -> None:
    """What was recorded with its origin counts from the beginning."""
    async with open_model_house(tmp_path) as house:
        model = await house.models.add(path, name="m")
        origin = ModelOrigin(kind="hub", fetched=True, sha256="0" * 64)
        await house.catalog.update(attrs.evolve(model, origin=origin))
        assert (await house.models.verify("m")).files[0].state is FileState.DAMAGED
