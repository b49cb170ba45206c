"""Archives of anybody's: what is in them stays in its folder, or nothing is unpacked."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.releases import Entry, tar_gz, zipped

from gglib_adapters.engines.unpacking import Bounds, UnpackFailed, unpack


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """Return a member of a tar that is no file."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


def unpacked(folder: Path, content: bytes, suffix: str, bounds: Bounds | None = None) -> Path:
    """Unpack ``content``, and return where."""
    archive = folder / f"archive{suffix}"
    archive.write_bytes(content)
    inside = folder / "outer" / "inside"
    inside.mkdir(parents=True)
    unpack(archive, inside, bounds or Bounds())
    return inside


def test_files_folders_and_links_are_as_they_were(tmp_path: Path) -> None:
    """Programs run, the rest does not, and nothing is anybody else's."""
    entries: list[Entry] = [
        member("./top", tarfile.DIRTYPE),
        ("./top/program", b"run me"),
        ("top/lib/lib.so.1", b"library"),
        member("top/lib/lib.so", tarfile.SYMTYPE, "./lib.so.1"),
        member("top/lib.so", tarfile.SYMTYPE, "lib/lib.so"),
        member("top/again", tarfile.LNKTYPE, "top/program"),
    ]
    inside = unpacked(tmp_path, tar_gz(entries), ".tar.gz")
    assert (inside / "top/lib.so").read_bytes() == b"library"
    assert (inside / "top/again").read_bytes() == b"run me"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in inside.rglob("*")}
    assert (modes["program"], modes["lib.so.1"], modes["lib"]) == (0o700, 0o600, 0o700)


def test_zip_is_unpacked_likewise(tmp_path: Path) -> None:
    """As llama.cpp packs for Windows: flat."""
    content = zipped([("llama-server.exe", b"run me"), ("ggml/ggml.dll", b"library")])
    inside = unpacked(tmp_path, content, ".zip")
    assert (inside / "ggml" / "ggml.dll").read_bytes() == b"library"


STRANGE_NAMES = [
    "../evil",
    "a/../../evil",
    "/etc/evil",
    "//evil",
    "..",
    "a/..",
    "C:/evil",
    "a\\..\\evil",
    "a" * 256,
    "/".join("a" * 17),
]


@pytest.mark.parametrize("name", STRANGE_NAMES)
@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str, pack: object) -> None:
    """By a parent, a root, a drive, or a length that no disk takes."""
    suffix = ".zip" if pack is zipped else ".tar.gz"
    content = pack([(name, b"evil")])  # type: ignore[operator]
    with pytest.raises(UnpackFailed, match="with the name"):
        unpacked(tmp_path, content, suffix)
    assert {path.name for path in tmp_path.rglob("*")} <= {f"archive{suffix}", "outer", "inside"}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([member("a", tarfile.SYMTYPE, "/etc/passwd")], "leads out"),
        ([member("a", tarfile.SYMTYPE, "../x")], "leads out"),
        ([member("b/a", tarfile.SYMTYPE, "../../x")], "leads out"),
        ([member("a", tarfile.SYMTYPE, "gone")], "leads to nothing"),
        ([member("a", tarfile.SYMTYPE, "a")], "leads to nothing"),
        (
            [member("a", tarfile.SYMTYPE, "b"), member("b", tarfile.SYMTYPE, "a")],
            "leads to nothing",
        ),
        ([member("a", tarfile.SYMTYPE, "."), ("a/evil", b"")], "leads to nothing"),
        ([member("a", tarfile.LNKTYPE, "../../etc/passwd")], "with the name"),
        ([member("a", tarfile.LNKTYPE, "gone")], "leads to nothing"),
        ([member("a", tarfile.CHRTYPE)], "no plain file"),
        ([member("a", tarfile.FIFOTYPE)], "no plain file"),
        ([("a", b"1"), ("a", b"2")], "holds 'a' twice"),
        ([("a", b"1"), ("./a", b"2")], "holds 'a' twice"),
        ([("a", b"1"), member("a", tarfile.SYMTYPE, "a")], "holds 'a' twice"),
        ([member("a", tarfile.SYMTYPE, "b"), ("b", b""), ("a", b"")], "holds 'a' twice"),
    ],
)
def test_what_is_no_plain_file_is_refused(
    tmp_path: Path, entries: list[Entry], message: str
) -> None:
    """Links out, links to nothing, devices, and the same name twice."""
    with pytest.raises(UnpackFailed, match=message):
        unpacked(tmp_path, tar_gz(entries), ".tar.gz")


def test_file_where_a_folder_is_meant_is_an_error(tmp_path: Path) -> None:
    """Of the archive, not of ours."""
    with pytest.raises((UnpackFailed, OSError)):
        unpacked(tmp_path, tar_gz([("a", b""), ("a/b", b"")]), ".tar.gz")


def test_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    """Windows has none."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        entry = zipfile.ZipInfo("a")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(UnpackFailed, match="no plain file"):
        unpacked(tmp_path, made.getvalue(), ".zip")


@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_bomb_is_defused(tmp_path: Path, pack: object) -> None:
    """16 MiB out of 16 KiB: cut at the bound, in little memory."""
    suffix = ".zip" if pack is zipped else ".tar.gz"
    content = pack([("zeros", bytes(16 << 20))])  # type: ignore[operator]
    assert len(content) < 20_000
    tracemalloc.start()
    try:
        with pytest.raises(UnpackFailed, match="more than 4194304 bytes"):
            unpacked(tmp_path, content, suffix, Bounds(total_bytes=4 << 20))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    written = sum(path.stat().st_size for path in (tmp_path / "outer").rglob("*") if path.is_file())
    assert written <= 4 << 20


def test_header_that_is_a_bomb_is_defused(tmp_path: Path) -> None:
    """A tar's own extensions are read whole: they have a bound of their own."""
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 512 << 20
    content = gzip.compress(header.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 20), 1)
    tracemalloc.start()
    try:
        with pytest.raises(UnpackFailed):
            unpacked(tmp_path, content, ".tar.gz")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_too_many_files_are_refused(tmp_path: Path, pack: object) -> None:
    """Each costs, however small."""
    suffix = ".zip" if pack is zipped else ".tar.gz"
    content = pack([(f"{number}.txt", b"") for number in range(11)])  # type: ignore[operator]
    with pytest.raises(UnpackFailed, match="more than 10 files"):
        unpacked(tmp_path, content, suffix, Bounds(files=10))


def test_zip_with_a_password_is_an_error(tmp_path: Path) -> None:
    """In words."""
    content = bytearray(zipped([("a", b"secret")]))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(UnpackFailed, match="cannot be read"):
        unpacked(tmp_path, bytes(content), ".zip")


SOUND = {
    ".tar.gz": tar_gz([("a/program", b"x" * 300), member("a/l", tarfile.SYMTYPE, "program")]),
    ".zip": zipped([("a/program", b"x" * 300), ("b.txt", b"y")]),
}


@given(
    suffix=st.sampled_from(sorted(SOUND)),
    cut=st.integers(0, 600),
    changes=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=4),
)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damaged_archive_is_unpacked_or_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory,
    suffix: str,
    cut: int,
    changes: list[tuple[int, int]],
) -> None:
    """Nothing lands outside, and no other error comes out."""
    content = bytearray(SOUND[suffix])
    for place, value in changes:
        content[place % len(content)] = value
    folder = tmp_path_factory.mktemp("damaged")
    with suppress(UnpackFailed, OSError):
        unpacked(folder, bytes(content[: max(1, len(content) - cut)]), suffix)
    assert sorted(path.name for path in folder.iterdir()) == [f"archive{suffix}", "outer"]
    assert [path.name for path in (folder / "outer").iterdir()] == ["inside"]
