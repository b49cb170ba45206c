"""Stores that are damaged, or want to do harm: refused one by one, and the rest is found."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.gguf_files import write_model
from support.stores import HfCache, OllamaFolder

from gglib.errors import InvalidModelFile
from gglib.ports.model_store import StoreSurvey
from gglib_adapters.sources.hugging_face import HuggingFaceStore
from gglib_adapters.sources.ollama import OllamaStore
from gglib_adapters.sources.ollama_params import defaults_of

NAME = "registry.ollama.ai/library/bad:1"
MIB = 1 << 20

pytestmark = pytest.mark.anyio


async def survey(store: OllamaFolder) -> StoreSurvey:
    """Return what is found."""
    return await OllamaStore().survey(store.path, ())


@pytest.fixture
def store(tmp_path: Path) -> OllamaFolder:
    """A store with a good tag and one that is to be damaged."""
    store = OllamaFolder(tmp_path / "store")
    store.tag("good:1")
    store.tag("bad:1", store.weights("y"), params={"seed": 1})
    return store


def edited(change: Callable[[Any], None]) -> Callable[[OllamaFolder], None]:
    """Return what changes the bad tag's manifest."""

    def edit(store: OllamaFolder) -> None:
        said = json.loads(store.manifest(NAME).read_text())
        change(said)
        store.manifest(NAME).write_text(json.dumps(said))

    return edit


def written(content: bytes) -> Callable[[OllamaFolder], None]:
    """Return what writes the bad tag's manifest."""

    def write(store: OllamaFolder) -> None:
        store.manifest(NAME).write_bytes(content)

    return write


def with_layer(**fields: Any) -> Callable[[OllamaFolder], None]:
    """Return what changes the manifest's first layer."""
    return edited(lambda said: said["layers"][0].update(fields))


def params(content: bytes) -> Callable[[OllamaFolder], None]:
    """Return what gives the bad tag these parameters, with the right digest."""

    def change(store: OllamaFolder) -> None:
        digest = store.blob(content)
        edited(lambda said: said["layers"][1].update(digest=digest, size=len(content)))(store)

    return change


def digest_of_bad(store: OllamaFolder) -> str:
    """Return the digest of the bad tag's weights."""
    digest: str = json.loads(store.manifest(NAME).read_text())["layers"][0]["digest"]
    return digest


def led_out(store: OllamaFolder) -> None:
    """Make the blob a link to a file elsewhere."""
    blob = store.blob_path(digest_of_bad(store))
    blob.rename(store.path.parent / "elsewhere")
    blob.symlink_to(store.path.parent / "elsewhere")


def cut_short(store: OllamaFolder) -> None:
    """End the blob early."""
    blob = store.blob_path(digest_of_bad(store))
    os.truncate(blob, blob.stat().st_size - 1)


def looped(store: OllamaFolder) -> None:
    """Make the blob a link to itself."""
    blob = store.blob_path(digest_of_bad(store))
    blob.unlink()
    blob.symlink_to(blob)


def piped(store: OllamaFolder) -> None:
    """Make the manifest a pipe, which would never end."""
    store.manifest(NAME).unlink()
    os.mkfifo(store.manifest(NAME))


DAMAGE = {
    "empty": (written(b""), "empty"),
    "not JSON": (written(b"{"), "damaged: not JSON"),
    "not an object": (written(b"[]"), "damaged: not a JSON object"),
    "not UTF-8": (written(b'{"a": "\xff"}'), "damaged: not UTF-8"),
    "nested": (written(b"[" * 200_000), "damaged: nested too deeply"),
    "huge number": (written(b'{"layers": ' + b"9" * 10_000 + b"}"), "damaged: not JSON"),
    "NaN": (written(b'{"layers": NaN}'), "damaged: not JSON"),
    "large": (written(b" " * (MIB + 1)), "larger than the 1024 KiB"),
    "a pipe": (piped, "not a regular file"),
    "no layers": (edited(lambda said: said.pop("layers")), "damaged: it has no list of layers"),
    "layers of nothing": (edited(lambda said: said.update(layers=[1])), "does not say what it is"),
    "many layers": (edited(lambda said: said.update(layers=[{}] * 1001)), "no list of layers"),
    "not here": (edited(lambda said: said["layers"].pop(0)), "no GGUF file of it is here"),
    "twice": (edited(lambda said: said["layers"].append(said["layers"][0])), "more than one"),
    "path": (with_layer(digest="sha256-../../../etc/passwd"), "is not the digest of a blob"),
    "traversal": (with_layer(digest="../" * 8 + "a" * 64), "is not the digest of a blob"),
    "NUL": (with_layer(digest="sha256:" + "\0" * 64), "is not the digest of a blob"),
    "upper case": (with_layer(digest="sha256:" + "A" * 64), "is not the digest of a blob"),
    "newline": (with_layer(digest="sha256:" + "a" * 64 + "\n"), "is not the digest of a blob"),
    "number": (with_layer(digest=7), "'7' is not the digest of a blob"),
    "no blob": (with_layer(digest="sha256:" + "a" * 64), "is missing; `ollama pull` gets it"),
    "another size": (cut_short, "`ollama pull` gets it again"),
    "link out": (led_out, "is a link out of the store; add that file itself"),
    "link to itself": (looped, "its blob sha256-"),
    "params": (params(b"{"), "damaged: not JSON"),
    "large params": (params(b" " * (MIB + 1)), "larger than the 1024 KiB"),
}


@pytest.mark.parametrize("kind", DAMAGE)
async def test_damaged_tag_is_refused_and_the_rest_is_found(store: OllamaFolder, kind: str) -> None:
    """With the manifest it is about, and why."""
    damage, reason = DAMAGE[kind]
    damage(store)
    found = await survey(store)
    assert [model.names for model in found.models] == [("good:1",)]
    (refused,) = found.passed_over
    assert refused.path == store.manifest(NAME)
    assert reason in refused.reason


async def test_names_that_cannot_be_one_are_refused(store: OllamaFolder) -> None:
    """They are said as they are on the disk; hidden files and stray ones are none."""
    for name in ("registry.ollama.ai/library/-rf:1", f"registry.ollama.ai/library/{'x' * 240}:1"):
        shutil.copy(store.manifest(NAME), store.manifest(name))
    odd = os.fsdecode(b"registry.ollama.ai/library/\xff:1")
    shutil.copy(store.manifest(NAME), store.manifest(odd))
    (store.path / "manifests" / ".DS_Store").write_bytes(b"x")
    (store.path / "manifests" / "stray").write_bytes(b"x")
    (store.path / "manifests" / "registry.ollama.ai" / "loop").symlink_to(store.path / "manifests")
    found = await survey(store)
    assert [model.names for model in found.models] == [("bad:1",), ("good:1",)]
    reasons = [each.reason for each in found.passed_over if "`ollama cp`" in each.reason]
    assert len(reasons) == 3


async def test_blobs_of_older_stores_have_a_colon(store: OllamaFolder) -> None:
    """In their names, and nothing else is different."""
    for blob in (store.path / "blobs").iterdir():
        blob.rename(blob.with_name(blob.name.replace("-", ":")))
    found = await survey(store)
    assert [model.names for model in found.models] == [("bad:1",), ("good:1",)]
    assert not found.passed_over


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_folder_that_may_not_be_read_is_refused(store: OllamaFolder) -> None:
    """One of them alone: the rest is found."""
    folder = store.manifest("hf.co/acme/x:1").parent
    folder.chmod(0)
    found = await survey(store)
    folder.chmod(0o700)
    assert len(found.models) == 2
    assert [each.path for each in found.passed_over] == [folder]


def test_parameters_that_have_no_place_are_told() -> None:
    """Those that leave a choice to the engine are none; of each other one, the reason."""
    said = {
        "num_gpu": -1,
        "num_thread": 0,
        "num_predict": -1,
        "seed": None,
        "use_mmap": False,
        "numa": True,
        "temperature": "hot",
        "num_ctx": 1.5,
        "top_k": True,
        "stop": "x",
        "min_p": 2,
        "a" * 500: 1,
    }
    defaults, left_out = defaults_of(said)
    assert dict(defaults.server) == {"mmap": False}
    assert defaults.inference is not None
    assert defaults.inference.set_fields() == {"stop": ("x",)}
    assert [each.split(": ")[0] for each in left_out] == [
        "parameter 'numa'",
        "parameter 'temperature'",
        "parameter 'num_ctx'",
        "parameter 'top_k'",
        "parameter 'min_p'",
        f"parameter '{'a' * 60}'",
    ]


@st.composite
def damaged_files(draw: st.DrawFn) -> list[tuple[int, bytes | None, int]]:
    """Return pieces that are written over files of a store, by the number of the file."""
    words = st.sampled_from([b"sha256:", b"../", b"\0", b"null", b"{}", b'"', b"[[", b"\xff", b""])
    pieces = st.one_of(st.none(), st.binary(max_size=40), words)
    places = st.tuples(st.integers(0, 9), pieces, st.integers(0, 600))
    return draw(st.lists(places, min_size=1, max_size=6))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(damage=damaged_files())
def test_no_damage_crashes_the_survey(damage: list[tuple[int, bytes | None, int]]) -> None:
    """Whatever is in a store: models, or reasons."""
    with TemporaryDirectory() as folder:
        store = OllamaFolder(Path(folder) / "store")
        store.tag("a:1", params={"stop": ["x"], "num_ctx": 10}, system=b"Be good.")
        store.tag("b/c:latest", store.weights("y"), template=b"x", projector=store.weights("z"))
        files = sorted(path for path in store.path.rglob("*") if path.is_file())
        for number, piece, place in damage:
            path = files[number % len(files)]
            if piece is None:
                path.unlink(missing_ok=True)
            elif path.exists():
                content = path.read_bytes()
                path.write_bytes(content[:place] + piece + content[place + len(piece) :])
        found = asyncio.run(survey(store))
        assert len(found.models) <= 2
        assert all(model.names and model.files.paths[0].exists() for model in found.models)
        assert all(each.reason for each in found.passed_over)
        assert len(found.models) + len(found.passed_over) <= 2


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"../../../etc", "refs/main names '../../../etc', no revision"),
        (b"\xff\xfe", "no revision"),
        (b"", "empty"),
        (b"a" * 5000, "larger than the 1 KiB"),
    ],
)
async def test_damaged_repository_of_the_cache_is_refused(
    tmp_path: Path, said: bytes, reason: str
) -> None:
    """And the others are found."""
    cache = HfCache(tmp_path / "hub")
    content = write_model(tmp_path / "m").read_bytes()
    for name in ("acme/good", "acme/bad"):
        cache.file(name, "a" * 40, "tiny.gguf", content)
    cache.main("acme/bad", "x")
    (cache.place("acme/bad") / "refs" / "main").write_bytes(said)
    (cache.path / "models--acme--..--..").mkdir()
    (cache.place("acme/nothing")).mkdir()
    gone = cache.file("acme/good", "a" * 40, "gone.gguf", b"x")
    gone.resolve().unlink()
    found = await HuggingFaceStore().survey(cache.path, ())
    assert [model.repository for model in found.models] == ["acme/good"]
    reasons = {each.path.name: each.reason for each in found.passed_over}
    assert reason in reasons.pop("models--acme--bad")
    assert reasons == {
        "models--acme--..--..": "its name is not that of a repository",
        "gone.gguf": "a link to nothing",
    }


async def test_small_file_of_the_cache_has_no_checksum(tmp_path: Path) -> None:
    """The name of its blob is another sum."""
    cache = HfCache(tmp_path / "hub")
    path = cache.file("acme/tiny", "a" * 40, "tiny.gguf", write_model(tmp_path / "m").read_bytes())
    blob = path.resolve().rename(path.resolve().with_name("b" * 40))
    path.unlink()
    path.symlink_to(blob)
    (model,) = (await HuggingFaceStore().survey(cache.path, ())).models
    assert model.files.marks[0].sha256 is None


async def test_store_with_too_many_entries_is_refused(
    store: OllamaFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No folder is listed without end."""
    monkeypatch.setattr("gglib_adapters.sources.store_files._MAX_ENTRIES", 1)
    with pytest.raises(InvalidModelFile, match="more than 1 entries"):
        await survey(store)
