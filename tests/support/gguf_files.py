"""GGUF files written by hand, right or wrong: what the reference writer refuses to write."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "ARRAY",
    "F32",
    "STRING",
    "U32",
    "GgufPieces",
    "pair",
    "string",
    "tensor",
    "text_pair",
    "write_model",
]

U32, F32, STRING, ARRAY = 4, 6, 8, 9


class GgufPieces:
    """A file in the making: header fields may be overridden with lies."""

    def __init__(self, order: str = "<", version: int = 3) -> None:
        self.order = order
        self.version = version
        self.pairs: list[bytes] = []
        self.tensors: list[bytes] = []
        self.data = b""
        self.pair_count: int | None = None
        self.tensor_count: int | None = None

    def to_bytes(self, alignment: int = 32) -> bytes:
        """Return the file."""
        head = b"GGUF" + struct.pack(
            f"{self.order}IQQ",
            self.version,
            len(self.tensors) if self.tensor_count is None else self.tensor_count,
            len(self.pairs) if self.pair_count is None else self.pair_count,
        )
        whole = head + b"".join(self.pairs) + b"".join(self.tensors)
        return whole + bytes(-len(whole) % alignment) + self.data


def string(value: str | bytes, order: str = "<") -> bytes:
    """Return a length-prefixed string."""
    encoded = value.encode() if isinstance(value, str) else value
    return struct.pack(f"{order}Q", len(encoded)) + encoded


def pair(key: str, kind: int, value: bytes, order: str = "<") -> bytes:
    """Return a metadata entry of packed ``value``."""
    return string(key, order) + struct.pack(f"{order}I", kind) + value


def text_pair(key: str, value: str, order: str = "<") -> bytes:
    """Return a metadata entry that is a text."""
    return pair(key, STRING, string(value, order), order)


def tensor(
    name: str, shape: Iterable[int], kind: int = 0, offset: int = 0, order: str = "<"
) -> bytes:
    """Return a tensor's description."""
    dimensions = list(shape)
    layout = f"{order}I{len(dimensions)}QIQ"
    return string(name, order) + struct.pack(layout, len(dimensions), *dimensions, kind, offset)


def write_model(
    path: Path,
    *,
    architecture: str = "llama",
    pairs: Iterable[bytes] = (),
    names: Iterable[str] = ("token_embd.weight",),
) -> Path:
    """Write a small whole model with one F32 element in each of its tensors."""
    pieces = GgufPieces()
    pieces.pairs = [text_pair("general.architecture", architecture), *pairs]
    pieces.tensors = [tensor(name, [1]) for name in names]
    pieces.data = bytes(4)
    path.write_bytes(pieces.to_bytes())
    return path
