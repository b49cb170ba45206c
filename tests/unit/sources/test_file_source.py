"""Finding models on a disk."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.gguf_files import U32, pair, write_model

from gglib.domain.model import Capability, Model
from gglib.errors import InvalidModelFile, ModelFileMissing
from gglib.ports.model_source import LocatedModel, ModelSource
from gglib.services.demo.tiny_gguf import tiny_gguf
from gglib.testing.contexts import make_context
from gglib_adapters.sources.file import open_file_source, suggested_name

pytestmark = pytest.mark.anyio


async def locate(folder: Path, reference: Path | str) -> LocatedModel:
    """Ask a source, entered as bootstrap enters it."""
    async with open_file_source(make_context(folder)) as source:
        assert isinstance(source, ModelSource)
        return await source.locate(str(reference))


def write_shards(folder: Path, count: int = 3, *, skip: int | None = None) -> list[Path]:
    """Write a model in ``count`` files of one tensor each; only the first tells what it is."""
    paths = []
    for number in range(1, count + 1):
        path = folder / f"big-{number:05d}-of-{count:05d}.gguf"
        if number != skip:
            entries = [pair("split.count", U32, struct.pack("<I", count))]
            write_model(path, pairs=entries, names=[f"blk.{number}.weight"])
        paths.append(path)
    return paths


async def test_file_is_located_with_its_facts(tmp_path: Path) -> None:
    """A model file gives its path, size, facts and a name."""
    path = tmp_path / "Tiny-Model.Q8_0.gguf"
    path.write_bytes(tiny_gguf())
    found = await locate(tmp_path, path)
    assert found.paths == (path,)
    assert found.size_bytes == path.stat().st_size
    assert found.suggested_name == "Tiny-Model.Q8_0"
    assert found.facts.capabilities == {Capability.CHAT, Capability.COMPLETION}


async def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tilde means the user's home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write_model(tmp_path / "m.gguf")
    assert (await locate(tmp_path, "~/m.gguf")).paths == (path,)


async def test_home_of_nobody_is_reported_missing(tmp_path: Path) -> None:
    """The home of a user who does not exist is a missing file, not a crash."""
    with pytest.raises(ModelFileMissing):
        await locate(tmp_path, "~no-such-user-here/m.gguf")


async def test_relative_path_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored does not depend on the folder of the day; '..' is taken out."""
    path = write_model(tmp_path / "m.gguf")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert (await locate(tmp_path, "../m.gguf")).paths == (path,)
    monkeypatch.chdir(tmp_path)
    assert (await locate(tmp_path, "m.gguf")).paths == (path,)


async def test_link_keeps_the_name_its_user_gave(tmp_path: Path) -> None:
    """A link into a store of checksums is remembered by the link."""
    blob = tmp_path / ("sha256-" + "0a" * 32)
    blob.write_bytes(tiny_gguf())
    link = tmp_path / "nice.gguf"
    link.symlink_to(blob)
    found = await locate(tmp_path, link)
    assert (found.paths, found.suggested_name) == ((link,), "nice")
    assert found.size_bytes == blob.stat().st_size


async def test_blob_without_a_name_takes_the_title(tmp_path: Path) -> None:
    """A file named by its checksum is suggested under its author's title."""
    blob = tmp_path / ("sha256-" + "0a" * 32)
    blob.write_bytes(tiny_gguf(name="Nice Model"))
    found = await locate(tmp_path, blob)
    assert (found.paths, found.suggested_name) == ((blob,), "Nice Model")


@pytest.mark.parametrize("asked", [0, 1, 2])
async def test_any_shard_finds_them_all(tmp_path: Path, asked: int) -> None:
    """Whichever shard is named, the model is the whole, the first shard first."""
    paths = write_shards(tmp_path)
    found = await locate(tmp_path, paths[asked])
    assert found.paths == tuple(paths)
    assert found.size_bytes == sum(path.stat().st_size for path in paths)
    assert found.facts.parameters == 3
    assert found.suggested_name == "big"


@pytest.mark.parametrize("missing", [1, 2])
async def test_missing_shard_is_named(tmp_path: Path, missing: int) -> None:
    """A gap is reported by the path of the file that should be there."""
    paths = write_shards(tmp_path, skip=missing)
    with pytest.raises(ModelFileMissing) as caught:
        await locate(tmp_path, paths[2])
    assert caught.value.path == paths[missing - 1]


async def test_damaged_shard_is_named(tmp_path: Path) -> None:
    """A shard that is cut is the one the error names."""
    paths = write_shards(tmp_path)
    os.truncate(paths[1], paths[1].stat().st_size - 1)
    with pytest.raises(InvalidModelFile, match="truncated: ") as caught:
        await locate(tmp_path, paths[0])
    assert caught.value.path == paths[1]


async def test_renamed_shard_is_refused(tmp_path: Path) -> None:
    """A part that lost its number cannot be completed; the reason says how it must be called."""
    path = write_shards(tmp_path)[0].rename(tmp_path / "renamed.gguf")
    with pytest.raises(InvalidModelFile, match="one of 3 shards, whose name must end in"):
        await locate(tmp_path, path)


async def test_impossible_shard_number_is_a_plain_name(tmp_path: Path) -> None:
    """'4 of 3' is somebody's file name, not a shard."""
    path = write_model(tmp_path / "m-00004-of-00003.gguf")
    found = await locate(tmp_path, path)
    assert (found.paths, found.suggested_name) == ((path,), "m-00004-of-00003")


async def test_projector_is_refused_by_its_path(tmp_path: Path) -> None:
    """A projector is refused as a model, with the setting it belongs to."""
    path = write_model(tmp_path / "mmproj.gguf", architecture="clip")
    with pytest.raises(InvalidModelFile, match="set mmproj_path to this file") as caught:
        await locate(tmp_path, path)
    assert caught.value.path == path


@pytest.mark.parametrize("reference", ["", "a\0b", "../a\0b", "x" * 5000])
async def test_reference_that_is_no_path_is_refused(tmp_path: Path, reference: str) -> None:
    """No text whatever escapes as an error of Python's."""
    with pytest.raises((InvalidModelFile, ModelFileMissing)):
        await locate(tmp_path, reference)


@given(st.text(), st.none() | st.text())
def test_suggested_name_is_always_valid(file_name: str, title: str | None) -> None:
    """Whatever a file is called, its suggestion may name a model."""
    name = suggested_name(file_name, title)
    Model(id=0, name=name, paths=(Path("m"),), size_bytes=0)


@pytest.mark.parametrize(
    ("file_name", "expected"),
    [
        ("Qwen2.5-7B-Q4_K_M.GGUF", "Qwen2.5-7B-Q4_K_M"),
        ("a-00001-of-00002.gguf", "a"),
        ("-00001-of-00002.gguf", "00001-of-00002"),
        ("..hidden.gguf", "hidden"),
        ("a..b\\c\n.gguf", "a.b-c"),
        (".gguf", "model"),
        ("x" * 300, "x" * 200),
    ],
)
def test_suggested_name_keeps_what_it_can(file_name: str, expected: str) -> None:
    """Only what a name may not have is changed."""
    assert suggested_name(file_name) == expected
