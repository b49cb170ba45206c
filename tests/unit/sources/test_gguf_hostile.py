"""The header reader against bytes that nobody vouches for."""

from __future__ import annotations

import os
import random
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gguf_files import ARRAY, F32, STRING, U32, GgufPieces, pair, string, tensor, text_pair

from gglib.errors import InvalidModelFile, ModelFileMissing
from gglib.services.demo.tiny_gguf import tiny_gguf
from gglib_adapters.sources.bounded_reader import MalformedFile, open_bounded
from gglib_adapters.sources.facts import facts_of
from gglib_adapters.sources.gguf_header import GgufHeader, read_gguf_header

HUGE = 2**63 - 1


def array(kind: int, count: int, items: bytes = b"") -> bytes:
    """Return an array's bytes, with any count."""
    return struct.pack("<IQ", kind, count) + items


def pieces(pairs: list[bytes] | None = None, tensors: list[bytes] | None = None) -> GgufPieces:
    """Return a file in the making."""
    made = GgufPieces()
    made.pairs, made.tensors = pairs or [], tensors or []
    return made


def lying(pair_count: int | None = None, tensor_count: int | None = None) -> bytes:
    """Return an empty file with false counts."""
    made = GgufPieces()
    made.pair_count, made.tensor_count = pair_count, tensor_count
    return made.to_bytes()


def nested(depth: int) -> bytes:
    """Return an array in an array in an array …"""
    return array(U32, 0) if depth == 0 else array(ARRAY, 1, nested(depth - 1))


CASES = {
    "other magic": (b"PK\x03\x04 and so on", r"not a GGUF file \(starts with b'PK"),
    "half a magic": (b"GG", r"not a GGUF file \(starts with b'GG'\)"),
    "nothing": (b"", "empty"),
    "magic only": (b"GGUF", "truncated: "),
    "version 1": (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1 is not supported"),
    "version 4": (b"GGUF" + struct.pack("<IQQ", 4, 0, 0), "version 4 is not supported"),
    "version 9, big endian": (b"GGUF" + struct.pack(">IQQ", 9, 0, 0), "version 9 is not supp"),
    "version 0": (b"GGUF" + struct.pack("<IQQ", 0, 0, 0), "version 0 is not supported"),
    "absurd pairs": (lying(pair_count=HUGE), f"claims {HUGE} metadata entries"),
    "absurd tensors": (lying(tensor_count=HUGE), f"claims {HUGE} tensors"),
    "more pairs than bytes": (lying(pair_count=1000), "truncated: "),
    "more tensors than bytes": (lying(tensor_count=1000), "truncated: "),
    "long key": (pieces([struct.pack("<QQ", HUGE, 0)]).to_bytes(), "a metadata key of"),
    "key beyond the end": (
        pieces([struct.pack("<QQ", 60_000, 0)]).to_bytes(),
        "truncated: ",
    ),
    "same key twice": (
        pieces([text_pair("k", "a"), text_pair("k", "b")]).to_bytes(),
        "has 'k' twice",
    ),
    "unknown value type": (pieces([pair("k", 77, b"")]).to_bytes(), "unknown value type 77"),
    "unknown item type": (pieces([pair("k", ARRAY, array(77, 1))]).to_bytes(), "type 77"),
    "long text": (
        pieces([pair("k", STRING, struct.pack("<Q", HUGE))]).to_bytes(),
        "truncated: ",
    ),
    "text of 2**64-1": (
        pieces([pair("k", STRING, struct.pack("<Q", 2**64 - 1))]).to_bytes(),
        "truncated: ",
    ),
    "absurd numbers": (pieces([pair("k", ARRAY, array(F32, HUGE))]).to_bytes(), "truncated: "),
    "absurd strings": (pieces([pair("k", ARRAY, array(STRING, HUGE))]).to_bytes(), "truncated: "),
    "string leaves the file": (
        pieces(
            [pair("k", ARRAY, array(STRING, 2, string("a") + struct.pack("<Q", HUGE)))]
        ).to_bytes(),
        "truncated: ",
    ),
    "string of 2**64-1, then more": (
        pieces(
            [pair("k", ARRAY, array(STRING, 3, struct.pack("<QQQ", 2**64 - 1, 0, 0)))]
        ).to_bytes(),
        "truncated: ",
    ),
    "string ends past the end": (
        pieces([pair("k", ARRAY, array(STRING, 1, struct.pack("<Q", 500)))]).to_bytes(),
        "truncated: ",
    ),
    "deep nesting": (pieces([pair("k", ARRAY, nested(40))]).to_bytes(), "nested more than"),
    "absurd nesting": (pieces([pair("k", ARRAY, array(ARRAY, HUGE))]).to_bytes(), "truncated: "),
    "alignment 3": (
        pieces([pair("general.alignment", U32, struct.pack("<I", 3))]).to_bytes(),
        "general.alignment is 3",
    ),
    "alignment 0": (
        pieces([pair("general.alignment", U32, struct.pack("<I", 0))]).to_bytes(),
        "general.alignment is 0",
    ),
    "alignment in words": (
        pieces([text_pair("general.alignment", "wide")]).to_bytes(),
        "general.alignment is 'wide'",
    ),
    "five dimensions": (pieces(tensors=[tensor("t", [1] * 5)]).to_bytes(), "has 5 dimensions"),
    "dimension zero": (pieces(tensors=[tensor("t", [4, 0])]).to_bytes(), "impossible dimensions"),
    "absurd dimensions": (
        pieces(tensors=[tensor("t", [HUGE, HUGE])]).to_bytes(),
        "impossible dimensions",
    ),
    "row of half a block": (pieces(tensors=[tensor("t", [33], kind=2)]).to_bytes(), "of Q4_0's 32"),
    "tensor between two places": (
        pieces(tensors=[tensor("t", [1], offset=4)]).to_bytes(),
        "tensor 't' lies at 4, no multiple of the alignment, 32",
    ),
    "two tensors of one name": (
        pieces(tensors=[tensor("t", [1]), tensor("t", [1])]).to_bytes() + bytes(32),
        "two of its tensors have the same name",
    ),
    "offset beyond the end": (
        pieces(tensors=[tensor("t", [1], offset=2**64 - 64)]).to_bytes(),
        "truncated: tensor 't'",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_malformed_file_is_refused_with_its_reason(tmp_path: Path, case: str) -> None:
    """Each way of being wrong has its own words, and names the file."""
    content, reason = CASES[case]
    path = tmp_path / "wrong.gguf"
    path.write_bytes(content)
    with pytest.raises(InvalidModelFile, match=reason) as caught:
        read_gguf_header(path)
    assert caught.value.path == path


def test_directory_is_refused(tmp_path: Path) -> None:
    """A folder is not a model, and the message says what to name instead."""
    with pytest.raises(InvalidModelFile, match=r"a directory; name the \.gguf file in it"):
        read_gguf_header(tmp_path)


@pytest.mark.parametrize("name", ["gone.gguf", "file/below.gguf"])
def test_missing_file_is_reported_missing(tmp_path: Path, name: str) -> None:
    """Neither an absent file nor one below a file is called invalid."""
    (tmp_path / "file").touch()
    with pytest.raises(ModelFileMissing):
        read_gguf_header(tmp_path / name)


def test_link_to_nowhere_is_reported_missing(tmp_path: Path) -> None:
    """A dangling link is a missing file."""
    (tmp_path / "link.gguf").symlink_to(tmp_path / "gone")
    with pytest.raises(ModelFileMissing):
        read_gguf_header(tmp_path / "link.gguf")


def test_link_to_itself_is_refused(tmp_path: Path) -> None:
    """A circle of links is unreadable, not missing."""
    (tmp_path / "loop.gguf").symlink_to(tmp_path / "loop.gguf")
    with pytest.raises(InvalidModelFile, match="cannot be read: "):
        read_gguf_header(tmp_path / "loop.gguf")


def test_name_that_no_path_can_have_is_refused(tmp_path: Path) -> None:
    """A NUL in the name is an error of ours, not Python's."""
    with pytest.raises(InvalidModelFile, match=r"cannot be read: .*null"):
        read_gguf_header(tmp_path / "a\0b")


def test_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    """Opening a pipe that nobody writes would wait for ever."""
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(InvalidModelFile, match="not a regular file"):
        read_gguf_header(tmp_path / "pipe.gguf")


def test_device_is_refused_without_reading() -> None:
    """An endless device is not read."""
    with pytest.raises(InvalidModelFile, match="not a regular file"):
        read_gguf_header(Path("/dev/zero"))


@contextmanager
def without_privileges() -> Iterator[None]:
    """Let file permissions count, for root as well."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_file_without_permission_is_refused(tmp_path: Path) -> None:
    """A file that may not be read says so."""
    path = tmp_path / "private.gguf"
    path.write_bytes(tiny_gguf())
    path.chmod(0)
    with without_privileges(), pytest.raises(InvalidModelFile, match="may not be read"):
        read_gguf_header(path)


def read_while_it_grows(path: Path) -> None:
    """Read a little, and let somebody else write."""
    with open_bounded(path) as reader:
        reader.take(100)
        with path.open("ab") as file:
            file.write(b"more")


def test_file_written_to_while_it_is_read_is_refused(tmp_path: Path) -> None:
    """What was read at the end need not fit to what was read at the beginning."""
    path = tmp_path / "growing.gguf"
    path.write_bytes(tiny_gguf())
    with pytest.raises(InvalidModelFile, match="changed while it was read; try again when"):
        read_while_it_grows(path)


def read_around_a_cut(path: Path) -> None:
    """Read a little, cut the file, read on behind the cut."""
    with open_bounded(path) as reader:
        reader.take(10)
        os.truncate(path, 1 << 20)
        reader.skip(2 << 20)
        reader.take(10)


def test_file_cut_while_it_is_read_is_refused(tmp_path: Path) -> None:
    """A file that shrinks after it was measured is refused, not waited for."""
    path = tmp_path / "shrinking.gguf"
    path.write_bytes(bytes(3 << 20))
    with pytest.raises(InvalidModelFile, match="shorter while it was read"):
        read_around_a_cut(path)


def test_sparse_file_of_endless_strings_is_given_up(tmp_path: Path) -> None:
    """A terabyte of empty strings is refused at a limit instead of walked."""
    made = pieces([pair("k", ARRAY, array(STRING, 1 << 30))])
    path = tmp_path / "sparse.gguf"
    path.write_bytes(made.to_bytes())
    os.truncate(path, 1 << 40)
    with pytest.raises(InvalidModelFile, match="more than 8388608 items"):
        read_gguf_header(path)


def test_sparse_file_of_long_strings_is_given_up(tmp_path: Path) -> None:
    """Strings that each need a new window are refused at a limit of bytes read."""
    path = tmp_path / "sparse.gguf"
    step = (2 << 20) + 8
    with path.open("wb") as file:
        file.write(pieces([pair("k", ARRAY, array(STRING, 1000))]).to_bytes(alignment=1))
        start = file.tell()
        for number in range(1000):
            file.seek(start + number * step)
            file.write(struct.pack("<Q", 2 << 20))
        file.truncate(start + 1000 * step)
    with pytest.raises(InvalidModelFile, match="larger than 256 MiB"):
        read_gguf_header(path)


def read(path: Path) -> GgufHeader | InvalidModelFile:
    """Read, and conclude; allow nothing but a header, or an error with a clear reason."""
    try:
        header = read_gguf_header(path)
        facts_of(header)
    except (InvalidModelFile, MalformedFile) as error:
        reason = error.reason if isinstance(error, InvalidModelFile) else str(error)
        assert reason.isprintable(), "a file cannot write to a terminal"
        assert 5 <= len(reason) <= 300
        return InvalidModelFile(path, reason)
    return header


def read_measured(path: Path) -> GgufHeader | InvalidModelFile:
    """Read, and hold the promise on memory."""
    tracemalloc.start()
    try:
        found = read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= (16 << 20) + 4 * path.stat().st_size
    return found


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_arbitrary_bytes_are_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, with_magic: bool
) -> None:
    """Whatever the bytes: a header or our own error."""
    path = tmp_path_factory.getbasetemp() / "arbitrary.gguf"
    path.write_bytes((b"GGUF\x03\0\0\0" if with_magic else b"") + content)
    read(path)


def mutate(content: bytes, source: random.Random) -> bytes:
    """Return ``content`` cut, with bits turned, or with a count replaced by a lie."""
    made = bytearray(content)
    header = 6000
    for _ in range(source.randint(1, 4)):
        where = source.randrange(min(header, len(made)) - 8)
        match source.randrange(4):
            case 0:
                made[where] ^= 1 << source.randrange(8)
            case 1:
                lie = source.choice([0, 1, 255, 2**31, 2**32 - 1, 2**40, HUGE, 2**64 - 1])
                made[where : where + 8] = lie.to_bytes(8, "little")
            case 2:
                del made[where : where + source.randint(1, 40)]
            case _:
                made[where:where] = source.randbytes(source.randint(1, 40))
    return bytes(made[: source.randrange(len(made))]) if source.random() < 0.2 else bytes(made)


def varied(order: str = "<") -> bytes:
    """Return a model with every kind of value, in either byte order."""
    made = GgufPieces(order)
    many = [string(f"token {number}", order) for number in range(1500)]
    inner = struct.pack(f"{order}IQII", U32, 2, 1, 2)
    made.pairs = [
        text_pair("general.architecture", "qwen3moe", order),
        text_pair("general.name", "A Model", order),
        *(
            pair(f"number.{kind}", kind, struct.pack(order + code, 1), order)
            for kind, code in enumerate("BbHhIif?")
        ),
        *(
            pair(f"long.{kind}", kind, struct.pack(order + code, 1), order)
            for kind, code in {10: "Q", 11: "q", 12: "d"}.items()
        ),
        pair("few", ARRAY, struct.pack(f"{order}IQ3f", F32, 3, 1, 2, 3), order),
        pair("nested", ARRAY, struct.pack(f"{order}IQ", ARRAY, 2) + inner * 2, order),
        pair("tokens", ARRAY, struct.pack(f"{order}IQ", STRING, 1500) + b"".join(many), order),
        text_pair("tokenizer.chat_template", "{% if tools %}<think>{% endif %}", order),
    ]
    made.tensors = [
        tensor(name, [32], kind=kind, offset=64 * number, order=order)
        for number, (name, kind) in enumerate(
            {"token_embd.weight": 8, "blk.0.attn_v.weight": 2, "mm.0.weight": 6}.items()
        )
    ]
    made.data = bytes(192)
    return made.to_bytes()


def test_varied_model_is_whole(tmp_path: Path) -> None:
    """What is damaged below can be read as it is, in both byte orders."""
    for order in "<>":
        path = tmp_path / "whole.gguf"
        path.write_bytes(varied(order))
        header = read(path)
        assert isinstance(header, GgufHeader), header
        assert header.metadata["nested"] == ((1, 2), (1, 2))


def read_mutants(folder: Path, count: int, seed: int) -> tuple[int, int]:
    """Return how many mutants were read, and how many refused."""
    source = random.Random(seed)
    wholes = [tiny_gguf()[:120_000], varied(), varied(">")]
    path = folder / "mutant.gguf"
    refused = 0
    for number in range(count):
        path.write_bytes(mutate(wholes[number % len(wholes)], source))
        reading = read_measured if number % 10 == 0 else read
        refused += isinstance(reading(path), InvalidModelFile)
    return count - refused, refused


def test_five_hundred_mutants_are_refused_or_read(tmp_path: Path) -> None:
    """Damaged copies of a real model end in a header or in our error, in little memory."""
    _, refused = read_mutants(tmp_path, 500, seed=1)
    assert refused > 250


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_ten_thousand_mutants_are_refused_or_read(tmp_path: Path) -> None:
    """The same, long."""
    read_mutants(tmp_path, 10_000, seed=2)


def dense(kind: str) -> bytes:
    """Return a file that packs the most objects into the fewest bytes."""
    many: list[bytes] = []
    tensors = [tensor("t", [])]
    if kind == "pairs":
        many = [pair(f"{number:x}", 0, b"\1") for number in range(16_000)]
    elif kind == "arrays":
        items = array(2, 4000, os.urandom(8000))
        many = [pair(f"{number}", ARRAY, items) for number in range(3000)]
    elif kind == "strings":
        items = array(STRING, 1000, string("a") * 1000)
        many = [pair(f"{number}", ARRAY, items) for number in range(300)]
    elif kind == "nested":
        items = array(ARRAY, 1000, array(0, 1, b"\1") * 1000)
        many = [pair(f"{number}", ARRAY, items) for number in range(80)]
    elif kind == "texts":
        wide = "\N{FACE WITH TEARS OF JOY}" + "x" * 900_000
        many = [text_pair(f"{number}", wide) for number in range(10)]
    else:
        tensors = [tensor(f"mm.{number:x}", []) for number in range(60_000)]
    return pieces([text_pair("general.architecture", "a"), *many], tensors).to_bytes() + bytes(4)


@pytest.mark.parametrize("kind", ["pairs", "arrays", "strings", "nested", "texts", "tensors"])
def test_dense_file_stays_within_its_memory(tmp_path: Path, kind: str) -> None:
    """Files made to blow up in memory keep the promise: 16 MiB and four times their size."""
    path = tmp_path / "dense.gguf"
    path.write_bytes(dense(kind))
    assert isinstance(read_measured(path), GgufHeader)
