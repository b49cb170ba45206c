"""Scanning: the catalog is made to agree with what lies in folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest
from support.gguf_files import U32, pair, write_model
from support.houses import ModelHouse, open_model_house

from gglib.domain.model import Capability
from gglib.errors import InvalidModelFile, ModelFileMissing
from gglib.services.catalog_steps import ScanStep
from gglib.services.models import Declaration

pytestmark = pytest.mark.anyio


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder for models, beside the data directory."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def told(steps: Sequence[ScanStep]) -> dict[str, str]:
    """Return what became of each file, by its name."""
    return {step.path.name: step.outcome.value for step in steps}


def wide_model(path: Path, width: int = 64) -> Path:
    """Write a model whose embeddings are so wide."""
    entry = pair("llama.embedding_length", U32, width.to_bytes(4, "little"))
    return write_model(path, pairs=[entry])


async def test_models_are_added_once_and_then_known(tmp_path: Path, models: Path) -> None:
    """A second scan reads and changes nothing."""
    (models / "sub").mkdir()
    write_model(models / "a.gguf")
    write_model(models / "sub" / "b.gguf")
    async with open_model_house(tmp_path) as house:
        steps = await house.models.scan([models])
        assert told(steps) == {"a.gguf": "added", "b.gguf": "added"}
        assert [(step.done, step.total) for step in steps] == [(1, 2), (2, 2)]
        assert await house.names() == ["a", "b"]
        assert house.events.names == ["model.added"] * 2
        revision = await house.catalog.revision()
        again = await house.models.scan([models, models / "sub"])
        assert told(again) == {"a.gguf": "unchanged", "b.gguf": "unchanged"}
        assert await house.catalog.revision() == revision


async def test_file_that_is_not_touched_is_not_read(tmp_path: Path, models: Path) -> None:
    """Its size and time are enough: its header may be rubbish meanwhile."""
    path = write_model(models / "a.gguf")
    async with open_model_house(tmp_path) as house:
        await house.models.scan([models])
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert told(await house.models.scan([models])) == {"a.gguf": "unchanged"}
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        (step,) = await house.models.scan([models])
        assert (step.outcome, step.model_name) == ("refused", "a")
        assert step.reason == "not a GGUF file (starts with b'\\x00\\x00\\x00\\x00')"
        assert await house.names() == ["a"], "a row is not lost by a damaged file"


async def test_changed_file_is_taken_up_and_its_settings_stay(tmp_path: Path, models: Path) -> None:
    """The facts are the file's, the rest its user's."""
    write_model(models / "a.gguf")
    async with open_model_house(tmp_path) as house:
        await house.models.scan([models])
        await house.models.configure("a", {"context_size": 4096})
        before = await house.models.rename("a", "mine")
        write_model(models / "a.gguf", architecture="qwen2", names=["x", "y"])
        assert told(await house.models.scan([models])) == {"a.gguf": "changed"}
        (after,) = await house.models.list()
        assert (after.id, after.name, after.defaults) == (before.id, "mine", before.defaults)
        assert (after.facts.architecture, after.facts.parameters) == ("qwen2", 2)
        assert after.size_bytes == (models / "a.gguf").stat().st_size
        assert house.events.names[-1] == "model.changed"


async def test_hostile_names_become_safe_unique_ones(tmp_path: Path, models: Path) -> None:
    """Whatever files are called, no two models look the same."""
    cyrillic = "qw\N{CYRILLIC SMALL LETTER IE}n"
    invisible = "\N{RIGHT-TO-LEFT OVERRIDE}"
    names = ["..qwen", "qwen", "QWEN", cyrillic, "-rf", "a\nb", "x" * 240, invisible]
    for name in names:
        write_model(models / f"{name}.gguf")
    write_model(models / os.fsdecode(b"\xff.gguf"))
    async with open_model_house(tmp_path) as house:
        steps = await house.models.scan([models])
        assert Counter(step.outcome.value for step in steps) == {"added": 9}
        expected = {"qwen", "models-QWEN", "qwen-2", f"{cyrillic}-3", "rf", "a b", "x" * 200}
        assert set(await house.names()) == {*expected, "model", "models-model"}
        assert told(await house.models.scan([models])) == dict.fromkeys(told(steps), "unchanged")


async def test_model_that_was_added_by_hand_is_not_added_again(
    tmp_path: Path, models: Path
) -> None:
    """It keeps its name; by another way, it is the same file."""
    path = write_model(models / "a.gguf")
    link = tmp_path / "link.gguf"
    link.symlink_to(path)
    async with open_model_house(tmp_path) as house:
        await house.models.add(link, name="mine")
        assert told(await house.models.scan([models])) == {}
        await house.models.remove("mine")
        await house.models.add(path, name="mine")
        assert told(await house.models.scan([models])) == {"a.gguf": "unchanged"}
        assert await house.names() == ["mine"]


async def test_declared_file_is_left_to_its_declaration(tmp_path: Path, models: Path) -> None:
    """The settings file has said all of it; its names are taken, too."""
    path = write_model(models / "a.gguf")
    write_model(models / "b.gguf")
    declaration = Declaration(name="declared", path=path, aliases=("b",))
    async with open_model_house(tmp_path, declaration) as house:
        assert told(await house.models.scan([models])) == {
            "a.gguf": "unchanged",
            "b.gguf": "added",
        }
        assert await house.names() == ["declared", "models-b"]


async def test_vanished_models_are_told_and_removed_if_wished(tmp_path: Path, models: Path) -> None:
    """A disk that is not mounted costs nobody their settings."""
    path = write_model(models / "a.gguf")
    write_model(models / "b.gguf")
    async with open_model_house(tmp_path) as house:
        await house.models.scan([models])
        path.unlink()
        steps = await house.models.scan([models])
        assert told(steps) == {"a.gguf": "vanished", "b.gguf": "unchanged"}
        assert await house.names() == ["a", "b"]
        assert told(await house.models.scan([models], prune=True))["a.gguf"] == "removed"
        assert await house.names() == ["b"]
        assert house.events.names[-1] == "model.removed"


async def test_model_that_has_lost_a_shard_is_told(tmp_path: Path, models: Path) -> None:
    """The shard is named, once as missing and once as the model's."""
    entry = pair("split.count", U32, (2).to_bytes(4, "little"))
    shards = [
        write_model(models / f"big-0000{number}-of-00002.gguf", pairs=[entry], names=[f"t{number}"])
        for number in (1, 2)
    ]
    async with open_model_house(tmp_path) as house:
        (step,) = await house.models.scan([models])
        assert (step.outcome, step.model_name) == ("added", "big")
        (model,) = await house.models.list()
        assert (model.paths, len(model.marks), model.facts.parameters) == (tuple(shards), 2, 2)
        shards[1].unlink()
        refused, vanished = await house.models.scan([models])
        assert refused.reason == "shards are missing: big-00002-of-00002.gguf"
        assert (vanished.path, vanished.model_name) == (shards[1], "big")


async def test_projector_is_attached_when_it_comes_and_left_when_it_goes(
    tmp_path: Path, models: Path
) -> None:
    """The model itself need not be read again."""
    from gguf import GGUFWriter

    path = wide_model(models / "eyes.gguf")
    wide_model(models / "blind.gguf", width=32)
    async with open_model_house(tmp_path) as house:
        await house.models.scan([models])
        projector = models / "mmproj-F16.gguf"
        writer = GGUFWriter(projector, "clip")
        writer.add_type("mmproj")
        writer.add_clip_has_vision_encoder(True)
        writer.add_vision_projection_dim(64)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        steps = await house.models.scan([models])
        assert told(steps) == {"eyes.gguf": "changed", "blind.gguf": "unchanged"}
        seeing = (await house.models.resolve("eyes")).model
        assert seeing.mmproj_path == projector
        assert Capability.VISION in seeing.facts.capabilities
        again = await house.models.add(path, name="by-hand")
        assert again.mmproj_path == projector, "`model add` finds it, too"
        projector.unlink()
        assert told(await house.models.scan([models]))["eyes.gguf"] == "changed"
        blind = (await house.models.resolve("eyes")).model
        assert (blind.mmproj_path, Capability.VISION in blind.facts.capabilities) == (None, False)


async def test_one_bad_file_does_not_keep_the_others_out(tmp_path: Path, models: Path) -> None:
    """Each is told with its reason."""
    write_model(models / "good.gguf")
    (models / "cut.gguf").write_bytes(b"GGUF\3\0\0\0")
    write_model(models / "lora.gguf", architecture="controlvector")
    async with open_model_house(tmp_path) as house:
        steps = {step.path.name: step for step in await house.models.scan([models])}
        assert steps["good.gguf"].outcome == "added"
        assert "truncated" in str(steps["cut.gguf"].reason)
        assert steps["lora.gguf"].reason == "a control vector, not a model"


async def test_file_that_grows_during_the_scan_is_refused(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download that is under way is no model yet; the next scan finds it whole."""
    path = write_model(models / "a.gguf")
    async with open_model_house(tmp_path) as house:
        locate = house.models._sources.locate

        async def write_first(reference: str) -> object:
            with path.open("ab") as file:
                file.write(bytes(32))
            return await locate(reference)

        with monkeypatch.context() as patch:
            patch.setattr(type(house.models._sources), "locate", lambda _, ref: write_first(ref))
            (step,) = await house.models.scan([models])
        assert (step.outcome, "changed during the scan" in str(step.reason)) == ("refused", True)
        assert told(await house.models.scan([models])) == {"a.gguf": "added"}


async def test_name_that_another_process_takes_meanwhile_is_not_fought_for(
    tmp_path: Path, models: Path
) -> None:
    """The scan chooses another."""
    write_model(models / "a.gguf")
    async with open_model_house(tmp_path) as house, open_model_house(tmp_path) as other:
        elsewhere = write_model(tmp_path / "elsewhere.gguf")
        took = await Racing(house, other, elsewhere).scan(models)
        assert took == "models-a"
        assert await house.names() == ["a", "models-a"]


class Racing:
    """Another process that adds a model as soon as a scan has looked at the catalog."""

    def __init__(self, house: ModelHouse, other: ModelHouse, path: Path) -> None:
        self.house, self.other, self.path = house, other, path

    async def scan(self, folder: Path) -> str | None:
        """Scan, and return what the model is called."""
        source = self.house.models._sources
        survey = source.survey

        async def add_first(folder: str, known: object) -> object:
            await self.other.models.add(self.path, name="a")
            return await survey(folder, known)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(source), "survey", lambda _, *given: add_first(*given))
            (step,) = await self.house.models.scan([folder])
        return step.model_name


async def test_folder_that_is_none_ends_the_scan_before_it_began(
    tmp_path: Path, models: Path
) -> None:
    """A mistyped folder is an error, and nothing of the others is done."""
    path = write_model(models / "a.gguf")
    async with open_model_house(tmp_path) as house:
        with pytest.raises(ModelFileMissing):
            await house.models.scan([models, tmp_path / "gone"])
        with pytest.raises(InvalidModelFile, match="not a folder"):
            await house.models.scan([path])
        assert await house.names() == []


async def test_model_without_marks_is_read_once(tmp_path: Path, models: Path) -> None:
    """One that an older gglib has added gets them, and then is known."""
    write_model(models / "a.gguf")
    async with open_model_house(tmp_path) as house:
        await house.models.scan([models])
        (model,) = await house.models.list()
        await house.catalog.update(attrs.evolve(model, marks=()))
        assert told(await house.models.scan([models])) == {"a.gguf": "changed"}
        assert told(await house.models.scan([models])) == {"a.gguf": "unchanged"}
