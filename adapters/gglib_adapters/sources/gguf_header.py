"""Reads the header of a GGUF file: what it says of itself, and where its tensors end."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import attrs

from gglib.domain.file_mark import FileMark
from gglib_adapters.sources.bounded_reader import BoundedReader, MalformedFile, open_bounded
from gglib_adapters.sources.ggml_types import GGML_TYPES
from gglib_adapters.sources.gguf_tensors import END_TENSORS, GgufTensors, tensor_size

__all__ = [
    "GgufHeader",
    "GgufValue",
    "SkippedArray",
    "parse_gguf_header",
    "peek_gguf_kind",
    "peeked_kind",
    "read_gguf_header",
]

_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q",
            12: "d"}  # fmt: skip
_DEFAULT_ALIGNMENT = 32

_MAX_PAIRS = 1 << 14
_MAX_TENSORS = 1 << 18
_MAX_DIMENSIONS = 4
_MAX_DEPTH = 8
_MAX_NAME_BYTES = 65_535
_MAX_KEPT_STRING_BYTES = 1 << 20
_MAX_KEPT_TEXT_BYTES = 1 << 21
_MAX_KEPT_ITEMS = 4096
_MAX_KEPT_STRINGS = 1024
_MAX_PROJECTION_SIZES = 64
#: By convention the architecture is the first entry; so many are looked at for it.
_MAX_PEEKED_PAIRS = 8
_PEEK_BYTES = 4096
_MAX_KEPT_ITEMS_IN_ALL = 1 << 16


@attrs.frozen
class SkippedArray:
    """An array whose ``count`` items were not kept; ``element_type`` is GGUF's number."""

    element_type: int
    count: int


GgufValue: TypeAlias = "int | float | str | SkippedArray | tuple[GgufValue, ...]"


@attrs.frozen(kw_only=True)
class GgufHeader:
    """One file's header. ``metadata`` holds numbers, texts up to 1 MiB and short arrays."""

    version: int
    big_endian: bool
    mark: FileMark
    metadata: Mapping[str, GgufValue]
    tensors: GgufTensors


def read_gguf_header(path: Path) -> GgufHeader:
    """Return the header of the GGUF file at ``path`` (v2 or v3, either byte order).

    Every count and length is checked against what is left of the file, and against fixed
    limits, before anything is allocated or visited: time and memory are bounded for any
    bytes. Vocabularies are walked, not decoded; of long arrays only the count is kept.

    Raises:
        ModelFileMissing: there is no such file.
        InvalidModelFile: it is not a regular, readable, whole GGUF file; the reason says why.

    Source: docs/gguf.md of ggml.
    """
    with open_bounded(path) as reader:
        return parse_gguf_header(reader)


def parse_gguf_header(reader: BoundedReader) -> GgufHeader:
    """Return the header that ``reader`` reads; see ``read_gguf_header``.

    Raises:
        MalformedFile: it is none.
    """
    return _Parser(reader).parse()


def peek_gguf_kind(path: Path) -> tuple[str | None, str | None]:
    """Return ``general.architecture`` and ``general.type``, read from the file's first 4 KiB.

    ``None``: it is not said among the first entries. Cheap: for looking at whole folders.

    Raises:
        ModelFileMissing, InvalidModelFile: as for ``read_gguf_header``.
    """
    with open_bounded(path, _PEEK_BYTES) as reader:
        return peeked_kind(reader)


def peeked_kind(reader: BoundedReader) -> tuple[str | None, str | None]:
    """Return what ``peek_gguf_kind`` does, of what ``reader`` reads.

    Raises:
        MalformedFile: it is no GGUF file.
    """
    found = _Parser(reader).peek()
    kinds = [found.get(key) for key in ("general.architecture", "general.type")]
    architecture, kind = (value if isinstance(value, str) else None for value in kinds)
    return architecture, kind


class _Parser:
    __slots__ = ("_alignment", "_kept_items", "_kept_text_bytes", "_numbers", "_order", "_reader")

    def __init__(self, reader: BoundedReader) -> None:
        self._reader = reader
        self._order = "<"
        self._numbers: dict[int, struct.Struct] = {}
        self._kept_items = 0
        self._kept_text_bytes = 0
        self._alignment = _DEFAULT_ALIGNMENT

    def parse(self) -> GgufHeader:
        version, tensor_count, pair_count = self._read_counts()
        metadata = self._read_pairs(pair_count)
        self._alignment = _alignment(metadata.get("general.alignment", _DEFAULT_ALIGNMENT))
        return GgufHeader(
            version=version,
            big_endian=self._order == ">",
            mark=self._reader.mark,
            metadata=MappingProxyType(metadata),
            tensors=self._read_tensors(tensor_count),
        )

    def peek(self) -> Mapping[str, GgufValue]:
        _, _, pair_count = self._read_counts()
        return self._read_pairs(min(pair_count, _MAX_PEEKED_PAIRS))

    def _read_counts(self) -> tuple[int, int, int]:
        version = self._read_version()
        tensor_count = self._count(_MAX_TENSORS, 24, "tensors")
        return version, tensor_count, self._count(_MAX_PAIRS, 13, "metadata entries")

    def _read_pairs(self, count: int) -> dict[str, GgufValue]:
        metadata: dict[str, GgufValue] = {}
        for _ in range(count):
            key = self._name("a metadata key")
            if key in metadata:
                raise MalformedFile(f"damaged: its metadata has {key[:80]!r} twice")
            metadata[key] = self._value(self._type())
        return metadata

    def _read_version(self) -> int:
        reader = self._reader
        magic = reader.take(min(4, reader.size))
        if magic != b"GGUF":
            raise MalformedFile(f"not a GGUF file (starts with {magic!r})")
        raw = reader.take(4)
        version = int.from_bytes(raw, "little")
        if version and not version & 0xFFFF:
            # Nothing marks a file as big endian but its version, which then looks huge.
            version, self._order = int.from_bytes(raw, "big"), ">"
            reader.set_byte_order(">")
        if version not in (2, 3):
            raise MalformedFile(f"GGUF version {version} is not supported; 2 and 3 are")
        self._numbers = {kind: struct.Struct(self._order + code) for kind, code in _NUMBERS.items()}
        return version

    def _count(self, limit: int, least_bytes: int, what: str) -> int:
        count = self._reader.length()
        if count > limit:
            raise MalformedFile(f"damaged: it claims {count} {what}; at most {limit} are read")
        self._reader.require(count * least_bytes)
        return count

    def _type(self) -> int:
        return self._reader.unpack(self._numbers[4])[0]

    def _name(self, what: str) -> str:
        size = self._reader.length()
        if size > _MAX_NAME_BYTES:
            raise MalformedFile(f"damaged: {what} of {size} bytes at byte {self._reader.offset}")
        return self._reader.take(size).decode("utf-8", "replace")

    def _value(self, kind: int) -> GgufValue:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            return self._array()
        number = self._reader.unpack(self._number(kind))[0]
        return bool(number) if kind == _BOOL else number

    def _number(self, kind: int) -> struct.Struct:
        try:
            return self._numbers[kind]
        except KeyError:
            raise MalformedFile(
                f"damaged: unknown value type {kind} at byte {self._reader.offset}"
            ) from None

    def _text(self) -> GgufValue:
        size = self._reader.length()
        self._reader.require(size)
        self._kept_text_bytes += size
        if size > _MAX_KEPT_STRING_BYTES or self._kept_text_bytes > _MAX_KEPT_TEXT_BYTES:
            self._kept_text_bytes -= size
            self._reader.skip(size)
            return SkippedArray(_STRING, size)
        return self._reader.take(size).decode("utf-8", "replace")

    def _array(self, depth: int = 1) -> GgufValue:
        kind, count = self._type(), self._reader.length()
        if kind == _STRING:
            return self._strings(count)
        if kind == _ARRAY:
            return self._nested(count, depth)
        layout = self._number(kind)
        self._reader.require(count * layout.size)
        if self._may_keep(count, _MAX_KEPT_ITEMS):
            return self._items(kind, count)
        self._reader.skip(count * layout.size)
        return SkippedArray(kind, count)

    def _strings(self, count: int) -> GgufValue:
        self._reader.require(8 * count)
        if self._may_keep(count, _MAX_KEPT_STRINGS):
            return tuple([self._text() for _ in range(count)])
        self._reader.skip_strings(count)
        return SkippedArray(_STRING, count)

    def _nested(self, count: int, depth: int) -> GgufValue:
        if depth == _MAX_DEPTH:
            raise MalformedFile(f"damaged: arrays nested more than {_MAX_DEPTH} deep")
        self._reader.require(12 * count)
        self._reader.walk(count)
        if self._may_keep(count, _MAX_KEPT_STRINGS):
            return tuple([self._array(depth + 1) for _ in range(count)])
        for _ in range(count):
            self._array(depth + 1)
        return SkippedArray(_ARRAY, count)

    def _may_keep(self, count: int, limit: int) -> bool:
        self._kept_items += count
        if count <= limit and self._kept_items <= _MAX_KEPT_ITEMS_IN_ALL:
            return True
        self._kept_items -= count
        return False

    def _items(self, kind: int, count: int) -> tuple[int | float, ...]:
        layout = struct.Struct(f"{self._order}{count}{_NUMBERS[kind]}")
        items = self._reader.unpack(layout)
        return tuple(map(bool, items)) if kind == _BOOL else items

    def _read_tensors(self, count: int) -> GgufTensors:
        reader = self._reader
        names, types = [], list[int]()
        bytes_by_type, ends = dict[int, int](), dict[str, int]()
        projection_sizes = set[int]()
        elements, end, last = 0, 0, ""
        for _ in range(count):
            name = self._name("a tensor's name")
            rank = self._type()
            if rank > _MAX_DIMENSIONS:
                raise MalformedFile(f"damaged: tensor {name[:80]!r} has {rank} dimensions")
            shape = [reader.length() for _ in range(rank)]
            kind, offset = self._type(), reader.length()
            size, size_bytes = tensor_size(name, shape, kind)
            if offset % self._alignment:
                raise MalformedFile(
                    f"damaged: tensor {name[:80]!r} lies at {offset}, "
                    f"no multiple of the alignment, {self._alignment}"
                )
            names.append(name)
            types.append(kind)
            if name in END_TENSORS:
                ends[name] = size_bytes
            elif name.startswith("mm.") and len(projection_sizes) < _MAX_PROJECTION_SIZES:
                projection_sizes.update(shape)
            elements += size
            bytes_by_type[kind] = bytes_by_type.get(kind, 0) + size_bytes
            if offset + size_bytes > end and kind in GGML_TYPES:
                end, last = offset + size_bytes, name
        data_start = -(-reader.offset // self._alignment) * self._alignment
        if count and data_start + end > reader.size:
            raise MalformedFile(
                f"truncated: tensor {last[:80]!r} ends at byte {data_start + end}, "
                f"the file at byte {reader.size}; fetch it again"
            )
        if len(set(names)) < count:
            raise MalformedFile("damaged: two of its tensors have the same name")
        return GgufTensors(
            names=tuple(names),
            types=tuple(types),
            elements=elements,
            bytes_by_type=MappingProxyType(bytes_by_type),
            bytes_by_name=MappingProxyType(ends),
            projection_sizes=frozenset(projection_sizes),
        )


def _alignment(value: GgufValue) -> int:
    if not isinstance(value, int) or value < 1 or value & (value - 1):
        raise MalformedFile(f"damaged: general.alignment is {value!r}, not a power of two")
    return value
