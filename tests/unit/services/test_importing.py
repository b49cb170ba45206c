"""Importing: what another tool keeps is in the catalog, where it lies, and stays in step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.gguf_files import write_model
from support.houses import ModelHouse, open_model_house
from support.stores import HfCache, OllamaFolder

from gglib.domain.model import Capability, Model
from gglib.errors import InvalidModelFile, InvalidRequest, ModelFileMissing, NotConfigured
from gglib.services.catalog_steps import ScanStep
from gglib.services.models import Declaration
from gglib.services.verifying import FileState
from gglib_adapters.sources import ollama as ollama_store

pytestmark = pytest.mark.anyio


@pytest.fixture
def ollama(tmp_path: Path) -> OllamaFolder:
    """An empty store of Ollama's."""
    return OllamaFolder(tmp_path / "ollama")


@pytest.fixture
def studio(tmp_path: Path) -> Path:
    """LM Studio's folder with one repository."""
    repository = tmp_path / "studio" / "acme" / "Tiny-GGUF"
    repository.mkdir(parents=True)
    write_model(repository / "tiny-Q8_0.gguf")
    return tmp_path / "studio"


@pytest.fixture
def cache(tmp_path: Path) -> HfCache:
    """An empty Hugging Face cache."""
    return HfCache(tmp_path / "hub")


def told(steps: Sequence[ScanStep]) -> list[tuple[str, str | None]]:
    """Return what became of each model."""
    return [(step.outcome.value, step.model_name) for step in steps]


async def only(house: ModelHouse) -> Model:
    """Return the one model there is."""
    (model,) = await house.models.list()
    return model


async def test_tag_becomes_a_model_by_its_name(tmp_path: Path, ollama: OllamaFolder) -> None:
    """Its file is the blob; its parameters, projector and checksum come along."""
    sees = write_model(tmp_path / "p", architecture="clip").read_bytes()
    params = {"temperature": 0.5, "stop": ["<|eot|>"], "num_ctx": 4096.0, "top_k": 40}
    digest = ollama.tag(params=params, projector=sees, license=b"MIT", template=b"{{ .Prompt }}")
    async with open_model_house(tmp_path) as house:
        (step,) = await house.models.import_models("ollama", ollama.path)
        model = await only(house)
        assert told([step]) == [("added", "llama3.2:3b")]
        assert step.left_out == ("template: the GGUF file's own is used",)
        assert (model.name, model.path) == ("llama3.2:3b", ollama.blob_path(digest))
        assert model.mmproj_path is not None and model.mmproj_path.read_bytes() == sees
        assert Capability.VISION in model.facts.capabilities
        assert dict(model.defaults.server) == {"context_size": 4096}
        assert model.defaults.inference is not None
        expected = {"temperature": 0.5, "top_k": 40, "stop": ("<|eot|>",)}
        assert model.defaults.inference.set_fields() == expected
        assert model.origin.kind == "ollama"
        assert model.origin.repository == "registry.ollama.ai/library/llama3.2:3b"
        assert model.origin.sha256 == model.marks[0].sha256 == digest.removeprefix("sha256:")
        (verified,) = (await house.models.verify("llama3.2:3b")).files
        assert verified.state is FileState.INTACT


@pytest.mark.parametrize("store", ["ollama", "lm-studio", "huggingface"])
async def test_second_import_changes_nothing(
    tmp_path: Path, ollama: OllamaFolder, studio: Path, cache: HfCache, store: str
) -> None:
    """Nor does it read a file, or write to the catalog."""
    ollama.tag(params={"seed": 1})
    cache.file("acme/tiny", "a" * 40, "tiny.gguf", ollama.weights())
    folder = {"ollama": ollama.path, "lm-studio": studio, "huggingface": cache.path}[store]
    async with open_model_house(tmp_path) as house:
        (step,) = await house.models.import_models(store, folder)
        revision = await house.catalog.revision()
        damaged = step.path.resolve()
        status = damaged.stat()
        damaged.write_bytes(bytes(status.st_size))
        os.utime(damaged, ns=(status.st_atime_ns, status.st_mtime_ns))
        (again,) = await house.models.import_models(store, folder)
        assert told([again]) == [("unchanged", step.model_name)]
        assert await house.catalog.revision() == revision
        assert house.events.names == ["model.added"]


async def test_tags_of_the_same_weights_are_one_model(tmp_path: Path, ollama: OllamaFolder) -> None:
    """Unless they are asked in other ways; what only one has and no place here is told."""
    for name in ("llama3.2:3b", "llama3.2:latest", "ada/short:v1"):
        ollama.tag(name, params={"seed": 1})
    ollama.tag("a-pirate:latest", params={"seed": 1}, system=b"You are a pirate.", adapter=b"x")
    ollama.tag("warm:latest", params={"temperature": 2})
    async with open_model_house(tmp_path) as house:
        steps = await house.models.import_models("ollama", ollama.path)
        one, other = await house.models.list()
        assert (one.name, other.name) == ("ada/short:v1", "warm:latest")
        pirate = ("a-pirate:latest", "a-pirate")
        assert one.aliases == ("llama3.2:3b", "llama3.2:latest", "llama3.2", *pirate)
        assert (one.path, other.aliases) == (other.path, ("warm",))
        assert [step.left_out for step in steps] == [
            (
                "a-pirate:latest: adapter: gglib does not apply it",
                "a-pirate:latest: system prompt: requests say it",
            ),
            (),
        ]
        again = await house.models.import_models("ollama", ollama.path)
        assert {step.outcome for step in again} == {"unchanged"}
        assert await house.names() == ["ada/short:v1", "warm:latest"]


async def test_other_registries_keep_their_name(tmp_path: Path, ollama: OllamaFolder) -> None:
    """As Ollama's users type it."""
    ollama.tag("hf.co/acme/Tiny-GGUF:Q8_0")
    async with open_model_house(tmp_path) as house:
        await house.models.import_models("ollama", ollama.path)
        assert await house.names() == ["hf.co/acme/Tiny-GGUF:Q8_0"]


async def test_tag_that_was_pulled_anew_is_the_same_model(
    tmp_path: Path, ollama: OllamaFolder
) -> None:
    """Its row follows it to the new blob, with what was set here and is not said there."""
    old = ollama.tag(params={"temperature": 1, "seed": 3})
    async with open_model_house(tmp_path) as house:
        await house.models.import_models("ollama", ollama.path)
        await house.models.configure("llama3.2:3b", {"inference.seed": 4, "inference.top_k": 9})
        await house.models.import_models("ollama", ollama.path)
        before = await house.models.rename("llama3.2:3b", "small")
        assert before.defaults.inference is not None
        assert before.defaults.inference.set_fields() == {"temperature": 1, "seed": 4, "top_k": 9}
        ollama.blob_path(old).unlink()
        new = ollama.tag(weights=ollama.weights("y"), params={"temperature": 0.5})
        assert told(await house.models.import_models("ollama", ollama.path, prune=True)) == [
            ("changed", "small")
        ]
        after = await only(house)
        assert (after.id, after.path) == (before.id, ollama.blob_path(new))
        assert (after.name, after.aliases) == ("small", ())
        assert after.defaults.inference is not None
        assert after.defaults.inference.set_fields() == {"temperature": 0.5, "seed": 4, "top_k": 9}
        assert after.marks[0].sha256 == new.removeprefix("sha256:")


async def test_new_tag_of_a_known_model_is_a_new_alias(
    tmp_path: Path, ollama: OllamaFolder
) -> None:
    """Whichever of them comes first in the alphabet; and a tag may go while another stays."""
    ollama.tag("m:b")
    async with open_model_house(tmp_path) as house:
        await house.models.import_models("ollama", ollama.path)
        ollama.tag("m:a")
        assert told(await house.models.import_models("ollama", ollama.path)) == [("changed", "m:b")]
        assert (await only(house)).aliases == ("m:a",)
        ollama.remove("m:b")
        steps = await house.models.import_models("ollama", ollama.path, prune=True)
        assert told(steps) == [("unchanged", "m:b")]


async def test_model_whose_file_is_gone_is_told_then_removed(
    tmp_path: Path, ollama: OllamaFolder, studio: Path
) -> None:
    """Only those of that tool, and only with ``prune``."""
    ollama.blob_path(ollama.tag()).unlink()
    ollama.tag("other:1", ollama.weights("y"))
    digest = ollama.tag("gone:1", ollama.weights("z"))
    async with open_model_house(tmp_path) as house:
        await house.models.import_models("ollama", ollama.path)
        await house.models.import_models("lm-studio", studio)
        ollama.remove("gone:1")
        ollama.blob_path(digest).unlink()
        next(studio.rglob("*.gguf")).unlink()
        steps = await house.models.import_models("ollama", ollama.path)
        assert [each for each in told(steps) if each[1]] == [
            ("unchanged", "other:1"),
            ("vanished", "gone:1"),
        ]
        assert await house.names() == ["gone:1", "other:1", "tiny-Q8_0"]
        steps = await house.models.import_models("ollama", ollama.path, prune=True)
        assert told(steps)[-1] == ("removed", "gone:1")
        assert await house.names() == ["other:1", "tiny-Q8_0"]
        (step,) = await house.models.import_models("lm-studio", studio, prune=True)
        assert step.outcome == "removed"


async def test_files_of_lm_studio_have_their_names_and_repository(
    tmp_path: Path, studio: Path
) -> None:
    """A projector beside them is theirs; a name that is taken gets the publisher's before it."""
    write_model(studio / "acme" / "Tiny-GGUF" / "mmproj-tiny.gguf", architecture="clip")
    (studio / "beta" / "Tiny").mkdir(parents=True)
    write_model(studio / "beta" / "Tiny" / "tiny-Q8_0.gguf", names=["y"])
    write_model(studio / "loose.gguf", names=["z"])
    async with open_model_house(tmp_path) as house:
        await house.models.import_models("lm-studio", studio)
        models = {model.name: model for model in await house.models.list()}
        origins = {name: model.origin.repository for name, model in models.items()}
        assert origins == {
            "tiny-Q8_0": "acme/Tiny-GGUF",
            "beta-tiny-Q8_0": "beta/Tiny",
            "loose": None,
        }
        seeing = models["tiny-Q8_0"]
        assert seeing.mmproj_path == studio / "acme" / "Tiny-GGUF" / "mmproj-tiny.gguf"
        assert {model.origin.kind for model in models.values()} == {"lm-studio"}


async def test_only_the_main_revision_of_the_cache_counts(tmp_path: Path, cache: HfCache) -> None:
    """By the path that has the file's name; when ``main`` moves, the model moves with it."""
    content = write_model(tmp_path / "m").read_bytes()
    old = cache.file("acme/tiny", "a" * 40, "tiny.gguf", content)
    new = cache.file("acme/tiny", "b" * 40, "tiny.gguf", content)
    cache.main("acme/tiny", "a" * 40)
    (cache.path / ".locks").mkdir()
    (cache.path / "datasets--acme--words").mkdir()
    cache.file("acme/safe", "c" * 40, "model.safetensors", b"no gguf")
    async with open_model_house(tmp_path) as house:
        assert told(await house.models.import_models("huggingface", cache.path)) == [
            ("added", "tiny")
        ]
        before = await only(house)
        assert before.path == old
        assert (before.origin.repository, before.origin.revision) == ("acme/tiny", "a" * 40)
        assert before.marks[0].sha256 == before.origin.sha256 == old.readlink().name
        cache.main("acme/tiny", "b" * 40)
        assert told(await house.models.import_models("huggingface", cache.path)) == [
            ("changed", "tiny")
        ]
        after = await only(house)
        assert (after.id, after.path, after.origin.revision) == (before.id, new, "b" * 40)


async def test_newest_snapshot_counts_where_main_is_not_here(
    tmp_path: Path, cache: HfCache
) -> None:
    """With every shard of its models, and the projector beside them."""
    for number, revision in enumerate(["b" * 40, "a" * 40]):
        for shard in (1, 2):
            name = f"big-0000{shard}-of-00002.gguf"
            content = write_model(tmp_path / "m", names=[f"t{shard}"]).read_bytes()
            path = cache.file("acme/big", revision, name, content)
        os.utime(path.parent, (number, number))
    projector = write_model(tmp_path / "p", architecture="clip").read_bytes()
    sees = cache.file("acme/big", "a" * 40, "mmproj-big.gguf", projector)
    cache.main("acme/big", "c" * 40)
    async with open_model_house(tmp_path) as house:
        await house.models.import_models("huggingface", cache.path)
        model = await only(house)
        assert model.name == "big"
        assert [path.parent.name for path in model.paths] == ["a" * 40] * 2
        assert [mark.sha256 for mark in model.marks] == [p.readlink().name for p in model.paths]
        assert (model.mmproj_path, model.origin.sha256) == (sees, None)


async def test_file_that_is_known_already_stays_what_it_is(
    tmp_path: Path, ollama: OllamaFolder, studio: Path, cache: HfCache
) -> None:
    """Added by hand, declared, or reached by a link from elsewhere."""
    (file,) = studio.rglob("*.gguf")
    digest = ollama.tag()
    cached = cache.file("acme/tiny", "a" * 40, "tiny.gguf", ollama.weights("y"))
    (tmp_path / "link.gguf").symlink_to(cached)
    declared = Declaration(name="declared", path=ollama.blob_path(digest))
    async with open_model_house(tmp_path, declared) as house:
        await house.models.add(file, name="mine")
        await house.models.add(tmp_path / "link.gguf")
        steps = await house.models.import_models("lm-studio", studio)
        steps = [*steps, *await house.models.import_models("ollama", ollama.path)]
        assert told(steps) == [("unchanged", "mine"), ("unchanged", "declared")]
        assert not await house.models.import_models("huggingface", cache.path)
        assert (await house.models.resolve("mine")).model.origin.kind == "file"


async def test_taken_names_are_not_taken_away(tmp_path: Path, ollama: OllamaFolder) -> None:
    """The model gets another, and an alias that is taken is told."""
    path = write_model(tmp_path / "m.gguf")
    ollama.tag("tiny:latest", ollama.weights("y"))
    async with open_model_house(tmp_path) as house:
        await house.models.add(path, name="tiny:latest", aliases=["tiny"])
        (step,) = await house.models.import_models("ollama", ollama.path)
        assert told([step]) == [("added", "ollama-tiny:latest")]
        assert step.left_out == ("name tiny: it is taken",)


async def test_models_of_two_stores_do_not_mix(tmp_path: Path, ollama: OllamaFolder) -> None:
    """The same tag elsewhere is another model, and neither is taken for the other."""
    other = OllamaFolder(tmp_path / "other")
    for store in (ollama, other):
        store.tag()
    async with open_model_house(tmp_path) as house:
        for _ in range(2):
            for store in (ollama, other):
                await house.models.import_models("ollama", store.path, prune=True)
        assert await house.names() == ["llama3.2:3b", "ollama-llama3.2:3b"]


async def test_file_of_an_import_is_not_gglibs_to_delete(tmp_path: Path, studio: Path) -> None:
    """The other tool's files stay, whatever is removed here."""
    async with open_model_house(tmp_path) as house:
        await house.models.import_models("lm-studio", studio)
        with pytest.raises(InvalidRequest, match="gglib did not fetch"):
            await house.models.remove("tiny-Q8_0", delete_files=True)
        assert await house.names() == ["tiny-Q8_0"]


@pytest.mark.parametrize(
    ("store", "places"),
    [
        ("ollama", ".ollama/models or /nowhere/models"),
        ("lm-studio", ".lmstudio/models or {home}/.cache/lm-studio/models"),
        ("huggingface", ".cache/huggingface/hub"),
    ],
)
async def test_folder_is_the_tools_own_if_none_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str, places: str
) -> None:
    """None there: the error names where it was looked for."""
    for name in ("OLLAMA_MODELS", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    # Who tests may have Ollama.
    monkeypatch.setattr(ollama_store, "SYSTEM_FOLDER", Path("/nowhere/models"))
    places = f"{tmp_path}/{places.format(home=tmp_path)}"
    async with open_model_house(tmp_path) as house:
        with pytest.raises(InvalidRequest) as caught:
            await house.models.import_models(store)
        assert f"in {places}; name the folder they are in" in str(caught.value)
        folder = Path(places.partition(" or ")[0])
        (folder / "manifests").mkdir(parents=True)
        assert await house.models.import_models(store) == []


@pytest.mark.parametrize(
    ("store", "variable", "below"),
    [
        ("ollama", "OLLAMA_MODELS", ""),
        ("huggingface", "HF_HUB_CACHE", ""),
        ("huggingface", "HF_HOME", "hub"),
        ("huggingface", "XDG_CACHE_HOME", "huggingface/hub"),
    ],
)
async def test_folder_may_be_said_by_the_tools_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str, variable: str, below: str
) -> None:
    """As the tool itself takes it."""
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HF_HOME", raising=False)
    folder = tmp_path / "there" / below
    OllamaFolder(folder).tag()
    HfCache(folder / "x").path.rmdir()
    content = write_model(tmp_path / "m", names=["y"]).read_bytes()
    cache = HfCache(tmp_path / "hub")
    cache.file("acme/tiny", "a" * 40, "llama3.2:3b.gguf", content)
    cache.place("acme/tiny").rename(folder / "models--acme--tiny")
    (link,) = folder.rglob("*.gguf")
    link.unlink()
    link.write_bytes(content)
    monkeypatch.setenv(variable, str(tmp_path / "there"))
    async with open_model_house(tmp_path) as house:
        assert told(await house.models.import_models(store)) == [("added", "llama3.2:3b")]


async def test_folder_that_is_no_store_is_an_error(tmp_path: Path, ollama: OllamaFolder) -> None:
    """By its name, and nothing is done."""
    async with open_model_house(tmp_path) as house:
        for store in ("ollama", "lm-studio", "huggingface"):
            with pytest.raises(ModelFileMissing):
                await house.models.import_models(store, tmp_path / "nowhere")
            with pytest.raises(InvalidModelFile, match="not a folder"):
                await house.models.import_models(store, write_model(tmp_path / "file"))
        with pytest.raises(InvalidModelFile, match="no store of Ollama's"):
            await house.models.import_models("ollama", ollama.path / "blobs")


async def test_service_without_stores_says_so(tmp_path: Path) -> None:
    """One that was made by hand knows no other tools."""
    async with open_model_house(tmp_path) as house:
        bare = type(house.models)(
            house.catalog,
            None,
            clock=None,
            events=house.events,  # type: ignore[arg-type]
        )
        with pytest.raises(NotConfigured, match="importing from ollama"):
            await bare.import_models("ollama")
