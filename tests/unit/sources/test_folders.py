"""What lies in folders, found without reading it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from support.gguf_files import write_model

from gglib.errors import InvalidModelFile, ModelFileMissing
from gglib.ports.model_source import FolderSurvey
from gglib.testing.contexts import make_context
from gglib_adapters.sources.file import open_file_source

pytestmark = pytest.mark.anyio


async def survey(folder: Path, *known: Path) -> FolderSurvey:
    """Ask a source of files."""
    async with open_file_source(make_context(folder)) as source:
        return await source.survey(str(folder), known)


def firsts(found: FolderSurvey) -> list[Path]:
    """Return the first file of each model."""
    return [each.paths[0] for each in found.models]


def write_shards(folder: Path, stem: str, count: int, *lost: int) -> list[Path]:
    """Write a model in several files, but for some."""
    paths = [folder / f"{stem}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)]
    for number, path in enumerate(paths, 1):
        if number not in lost:
            write_model(path)
    return paths


async def test_models_are_found_at_any_depth_and_others_left(tmp_path: Path) -> None:
    """By their suffix, in any case; each with its size and time."""
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    paths = [write_model(deep / "deep.gguf"), write_model(tmp_path / "top.GGUF")]
    (tmp_path / "notes.txt").write_text("no model")
    found = await survey(tmp_path)
    assert sorted(firsts(found)) == sorted(paths)
    marks = {each.paths: each.marks for each in found.models}
    (mark,) = marks[(paths[0],)]
    status = paths[0].stat()
    assert (mark.size_bytes, mark.mtime_ns, mark.sha256) == (
        status.st_size,
        status.st_mtime_ns,
        None,
    )
    assert found.passed_over == ()


async def test_shards_are_one_find_and_missing_ones_are_named(tmp_path: Path) -> None:
    """A model that lacks some is none, and is told of once."""
    whole = write_shards(tmp_path, "whole", 3)
    lacking = write_shards(tmp_path, "lacking", 9, 2, 3, 4, 5, 6, 7)
    found = await survey(tmp_path)
    assert [each.paths for each in found.models] == [tuple(whole)]
    (said,) = found.passed_over
    assert said.path == lacking[0]
    assert (
        said.reason
        == "shards are missing: " + ", ".join(path.name for path in lacking[1:6]) + " and 1 more"
    )


async def test_loops_of_links_end_and_a_file_is_found_once(tmp_path: Path) -> None:
    """By the first way in order of names, or by the one that is known."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b" / "other").symlink_to(tmp_path / "a")
    (tmp_path / "self.gguf").symlink_to(tmp_path / "self.gguf")
    (tmp_path / "nothing.gguf").symlink_to(tmp_path / "gone")
    path = write_model(tmp_path / "a" / "m.gguf")
    link = tmp_path / "b" / "link.gguf"
    link.symlink_to(path)
    hard = tmp_path / "b" / "hard.gguf"
    os.link(path, hard)
    found = await survey(tmp_path)
    assert len(found.models) == 1
    assert [(each.path.name, each.reason) for each in found.passed_over] == [
        ("nothing.gguf", "a link to nothing"),
        ("self.gguf", "Too many levels of symbolic links"),
    ]
    assert firsts(await survey(tmp_path, link)) == [link]
    assert firsts(await survey(tmp_path / "b", path)) == [], "it is known by a way outside"


@contextmanager
def without_privileges() -> Iterator[None]:
    """Let permissions count, for root as well."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(user)


async def test_unreadable_folder_is_said_and_the_rest_found() -> None:
    """One closed door does not end the walk."""
    # Not in the test's own folder: only its user may enter that one.
    with TemporaryDirectory() as folder:
        await walk_past_a_closed_door(Path(folder))


async def walk_past_a_closed_door(folder: Path) -> None:
    """Look into a folder of which a part may not be seen."""
    closed = folder / "closed"
    closed.mkdir()
    write_model(closed / "hidden.gguf")
    path = write_model(folder / "m.gguf")
    folder.chmod(0o755)
    closed.chmod(0)
    try:
        with without_privileges():
            found = await survey(folder, closed / "hidden.gguf")
    finally:
        closed.chmod(0o700)
    assert firsts(found) == [path]
    assert [(each.path, each.reason) for each in found.passed_over] == [
        (closed, "may not be read; check its permissions")
    ]
    assert found.vanished == (), "what cannot be seen is not gone"


async def test_known_files_that_are_gone_are_told(tmp_path: Path) -> None:
    """Those below the folder; not those elsewhere."""
    here = write_model(tmp_path / "here.gguf")
    gone = tmp_path / "sub" / "gone.gguf"
    found = await survey(tmp_path, here, gone, Path("/elsewhere/gone.gguf"))
    assert found.vanished == (gone,)


async def test_strange_files_are_passed_over(tmp_path: Path) -> None:
    """A pipe would make who reads it wait for ever."""
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "folder.gguf").mkdir()
    inside = write_model(tmp_path / "folder.gguf" / "m.gguf")
    found = await survey(tmp_path)
    assert firsts(found) == [inside]
    assert [(each.path.name, each.reason) for each in found.passed_over] == [
        ("pipe.gguf", "not a regular file")
    ]


async def test_name_that_claims_a_hundred_thousand_shards_is_a_plain_one(tmp_path: Path) -> None:
    """It is not looked for 99,998 others."""
    path = write_model(tmp_path / "m-00001-of-99999.gguf")
    assert firsts(await survey(tmp_path)) == [path]


@pytest.mark.parametrize(
    ("name", "error"),
    [("gone", ModelFileMissing), ("m.gguf", InvalidModelFile), ("a\0b", ModelFileMissing)],
)
async def test_folder_that_is_none_is_refused(
    tmp_path: Path, name: str, error: type[Exception]
) -> None:
    """A mistyped folder is no empty one."""
    write_model(tmp_path / "m.gguf")
    with pytest.raises(error):
        await survey(tmp_path / name)


async def test_names_that_are_no_text_are_found(tmp_path: Path) -> None:
    """The system allows any bytes but two."""
    path = tmp_path / os.fsdecode(b"\xff\xfe\n.gguf")
    write_model(path)
    assert firsts(await survey(tmp_path)) == [path]
