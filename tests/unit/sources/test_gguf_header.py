"""The header reader against the reference implementation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, LlamaFileType
from support.gguf_files import (
    ARRAY,
    STRING,
    U32,
    GgufPieces,
    pair,
    string,
    tensor,
    text_pair,
)

from gglib.errors import InvalidModelFile
from gglib.services.demo.tiny_gguf import tiny_gguf
from gglib_adapters.sources.ggml_types import FILE_TYPES, GGML_TYPES, quantization_label
from gglib_adapters.sources.gguf_header import SkippedArray, read_gguf_header

SCALARS: dict[str, Any] = {
    "uint8": 200,
    "int8": -100,
    "uint16": 60_000,
    "int16": -30_000,
    "uint32": 4_000_000_000,
    "int32": -2_000_000_000,
    "float32": 0.5,
    "uint64": 2**63 + 5,
    "int64": -(2**62),
    "float64": 1e300,
    "bool": True,
    "string": "Grüße, 世界 🙂",
}
ARRAYS: dict[str, list[Any]] = {
    "test.ints": [1, -2, 3],
    "test.floats": [0.5, -1.25],
    "test.bools": [True, False, True],
}


def write_reference(path: Path, endianess: gguf.GGUFEndian) -> Path:
    """Write every value type with the reference writer."""
    writer = gguf.GGUFWriter(path, "llama", endianess=endianess)
    for kind, value in SCALARS.items():
        getattr(writer, f"add_{kind}")(f"test.{kind}", value)
    for key, items in ARRAYS.items():
        writer.add_array(key, items)
    writer.add_array("test.strings", ["a", "", "ccc"])
    writer.add_array("test.nested", [[1, 2], [3]])
    writer.add_tensor("token_embd.weight", np.ones((5, 64), dtype=np.float32))
    writer.add_tensor("output.weight", np.ones((3, 32), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("endianess", list(gguf.GGUFEndian))
def test_reference_file_of_every_value_type_reads_as_the_reference_reads_it(
    tmp_path: Path, endianess: gguf.GGUFEndian, version: int
) -> None:
    """Scalars, arrays and tensors of both versions and byte orders come out as written."""
    path = write_reference(tmp_path / "a.gguf", endianess)
    content = bytearray(path.read_bytes())
    order = "little" if endianess is gguf.GGUFEndian.LITTLE else "big"
    content[4:8] = version.to_bytes(4, order)  # type: ignore[arg-type]
    path.write_bytes(content)

    header = read_gguf_header(path)
    reference = gguf.GGUFReader(path)

    assert header.version == version
    assert header.big_endian == (endianess is gguf.GGUFEndian.BIG)
    expected = {
        key: field.contents()
        for key, field in reference.fields.items()
        if not key.startswith("GGUF.")
    }
    for key in SCALARS:
        assert header.metadata[f"test.{key}"] == expected[f"test.{key}"]
    for key in ARRAYS:
        assert list(header.metadata[key]) == expected[key]  # type: ignore[arg-type]
    assert list(header.metadata["test.strings"]) == expected["test.strings"]  # type: ignore[arg-type]
    assert header.metadata["test.nested"] == ((1, 2), (3,))
    assert expected["test.nested"] == [1, 2, 3], "the reference flattens what is nested"
    assert set(header.metadata) == set(expected)
    assert header.tensors.names == tuple(found.name for found in reference.tensors)
    assert header.tensors.elements == sum(int(found.n_elements) for found in reference.tensors)
    assert sum(header.tensors.bytes_by_type.values()) == sum(
        int(found.n_bytes) for found in reference.tensors
    )


def test_element_types_are_those_of_the_reference() -> None:
    """Every ggml type that the reference knows has its name and sizes here."""
    expected = {int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}
    assert {
        number: (kind.name, kind.block_size, kind.block_bytes)
        for number, kind in GGML_TYPES.items()
    } == expected


def test_file_types_are_those_of_the_reference() -> None:
    """Every file type that the reference knows has its label here, on a known element type."""
    expected = {
        int(kind): kind.name.removeprefix("MOSTLY_").removeprefix("ALL_")
        for kind in LlamaFileType
        if kind is not LlamaFileType.GUESSED
    }
    assert {number: label for number, (label, _) in FILE_TYPES.items()} == expected
    assert {base for _, base in FILE_TYPES.values()} <= {kind.name for kind in GGML_TYPES.values()}


Q4_K, Q6_K, F32_TYPE, F16_TYPE, Q5_0 = 12, 14, 0, 1, 6


@pytest.mark.parametrize(
    ("bytes_by_type", "file_type", "expected"),
    [
        ({Q4_K: 900, Q6_K: 300, F32_TYPE: 5}, 15, "Q4_K_M"),
        ({Q4_K: 900, Q6_K: 300}, 14, "Q4_K_S"),
        ({Q4_K: 900, Q6_K: 300}, None, "Q4_K"),
        ({Q4_K: 900, F16_TYPE: 3}, 1, "Q4_K"),
        ({Q5_0: 900, Q4_K: 30}, 15, "Q4_K_M"),
        ({Q5_0: 900}, 15, "Q5_0"),
        ({F16_TYPE: 900, F32_TYPE: 10}, 1, "F16"),
        ({F32_TYPE: 10}, "nonsense", "F32"),
        ({777: 10}, 15, "type 777"),
        ({777: 10}, 10**9, "type 777"),
        ({}, 15, None),
    ],
)
def test_quantization_label_follows_the_tensors_before_the_file_type(
    bytes_by_type: dict[int, int], file_type: object, expected: str | None
) -> None:
    """A file type refines what the tensors say, and is ignored where they contradict it."""
    assert quantization_label(bytes_by_type, file_type) == expected


def test_strings_longer_than_the_window_are_walked(tmp_path: Path) -> None:
    """Strings that cross, fill and exceed the read window are all counted."""
    few = [3_000_000, 0, 1 << 20, (1 << 20) - 8, 1, 5_000_000]
    lengths = [*few, *[0] * 1100]  # more than are kept
    items = b"".join(string(b"x" * length) for length in lengths)
    pieces = GgufPieces()
    pieces.pairs = [
        pair(
            "long", ARRAY, STRING.to_bytes(4, "little") + len(lengths).to_bytes(8, "little") + items
        ),
        text_pair("after", "found"),
    ]
    path = tmp_path / "long.gguf"
    path.write_bytes(pieces.to_bytes())

    header = read_gguf_header(path)

    assert header.metadata["long"] == SkippedArray(STRING, len(lengths))
    assert header.metadata["after"] == "found"


def test_short_lists_of_texts_are_kept(tmp_path: Path) -> None:
    """Tags and languages; of a text that is too long its length only."""
    long = "x" * (2 << 20)
    items = b"".join(string(each) for each in ("chat", "dünn", long))
    pieces = GgufPieces()
    pieces.pairs = [pair("tags", ARRAY, STRING.to_bytes(4, "little") + b"\3" + bytes(7) + items)]
    path = tmp_path / "tags.gguf"
    path.write_bytes(pieces.to_bytes())
    assert read_gguf_header(path).metadata["tags"] == (
        "chat",
        "dünn",
        SkippedArray(STRING, len(long)),
    )


def test_texts_and_arrays_beyond_what_is_kept_are_skipped(tmp_path: Path) -> None:
    """A licence of two megabytes and a long array leave their sizes only."""
    items = b"".join(number.to_bytes(4, "little") for number in range(5000))
    pieces = GgufPieces()
    pieces.pairs = [
        text_pair("licence", "x" * (2 << 20)),
        pair("many", ARRAY, U32.to_bytes(4, "little") + (5000).to_bytes(8, "little") + items),
        text_pair("after", "found"),
    ]
    path = tmp_path / "big.gguf"
    path.write_bytes(pieces.to_bytes())

    assert dict(read_gguf_header(path).metadata) == {
        "licence": SkippedArray(STRING, 2 << 20),
        "many": SkippedArray(U32, 5000),
        "after": "found",
    }


def test_tensor_of_an_unknown_type_is_counted_and_not_measured(tmp_path: Path) -> None:
    """A type that a newer ggml brought does not make its file unreadable."""
    pieces = GgufPieces()
    pieces.tensors = [tensor("a", [1 << 20], kind=999)]
    path = tmp_path / "new.gguf"
    path.write_bytes(pieces.to_bytes())

    tensors = read_gguf_header(path).tensors

    assert (tensors.elements, dict(tensors.bytes_by_type)) == (1 << 20, {999: 1 << 20})


def test_whole_model_cut_anywhere_is_refused(tmp_path: Path) -> None:
    """Every proper prefix of a model is refused, and says that it is cut."""
    whole = tiny_gguf()
    path = tmp_path / "cut.gguf"
    for end in [*range(4, 400), 5000, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:end])
        with pytest.raises(InvalidModelFile, match="truncated: "):
            read_gguf_header(path)


def test_alignment_of_the_file_moves_its_data(tmp_path: Path) -> None:
    """Data begins at the next multiple of general.alignment: one byte less is truncated."""
    pieces = GgufPieces()
    pieces.pairs = [pair("general.alignment", U32, (256).to_bytes(4, "little"))]
    pieces.tensors = [tensor("a", [8])]
    pieces.data = bytes(32)
    path = tmp_path / "aligned.gguf"
    whole = pieces.to_bytes(alignment=256)
    path.write_bytes(whole)
    assert read_gguf_header(path).tensors.elements == 8

    path.write_bytes(whole[:-1])
    with pytest.raises(InvalidModelFile, match=r"truncated: tensor 'a' ends at byte 288, .* 287"):
        read_gguf_header(path)
