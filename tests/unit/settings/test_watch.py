"""Whether a file has changed, by looking."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gglib.settings.watch import FileWatch


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file with something in it."""
    path = tmp_path / "file"
    path.write_text("one")
    return path


def replace(file: Path, text: str) -> None:
    """Put another file in its place, as editors and tools do."""
    fresh = file.with_name("fresh")
    fresh.write_text(text)
    fresh.replace(file)


def test_file_that_nobody_touches_has_not_changed(file: Path) -> None:
    """However often one looks."""
    watch = FileWatch(file)
    assert not any(watch.has_changed() for _ in range(3))


@pytest.mark.parametrize("write", [replace, Path.write_text])
def test_change_is_told_when_the_file_has_kept_still(file: Path, write: object) -> None:
    """And once, when it was read for it."""
    watch = FileWatch(file)
    write(file, "other")  # type: ignore[operator]
    assert [watch.has_changed(), watch.has_changed()] == [False, True]
    watch.note_reading()
    assert not any(watch.has_changed() for _ in range(3))


def test_file_that_is_still_written_is_waited_for(file: Path) -> None:
    """Each look finds it longer."""
    watch = FileWatch(file)
    for number in range(5):
        file.write_text("x" * (number + 10))
        assert not watch.has_changed()
    assert watch.has_changed()


def test_file_that_is_gone_has_not_changed(file: Path) -> None:
    """Another may take its place."""
    watch = FileWatch(file)
    file.unlink()
    assert not any(watch.has_changed() for _ in range(3))
    file.write_text("back")
    assert [watch.has_changed(), watch.has_changed()] == [False, True]


def test_other_file_of_the_same_size_and_time_is_a_change(file: Path) -> None:
    """It is another file."""
    watch = FileWatch(file)
    found = file.stat()
    fresh = file.with_name("fresh")
    fresh.write_text("two")
    os.utime(fresh, ns=(found.st_atime_ns, found.st_mtime_ns))
    fresh.replace(file)
    assert [watch.has_changed(), watch.has_changed()] == [False, True]


def test_any_of_several_files_may_change_and_all_are_waited_for(file: Path) -> None:
    """As a certificate and its key, which are written one after the other."""
    key = file.with_name("key")
    key.write_text("one")
    watch = FileWatch(file, key)
    file.write_text("two two")
    assert not watch.has_changed()
    key.write_text("two two")
    assert [watch.has_changed(), watch.has_changed()] == [False, True]
    key.unlink()
    assert not any(watch.has_changed() for _ in range(3))
