"""Models to pull, as large as a test wants them, and who pulls them."""

from __future__ import annotations

import random
from pathlib import Path

from support.commands import Home
from support.gguf_files import U32, GgufPieces, pair, tensor, text_pair
from support.hub import LocalHub

__all__ = ["files_below", "home_for", "model_bytes", "projector_bytes", "shard_bytes"]

_F32 = 0
_BOOL = 7
_WIDTH = 16
#: No generator makes more than 256 MiB at once.
_AT_ONCE_BYTES = 64 << 20


def model_bytes(size_bytes: int = 4096, seed: int = 0) -> bytes:
    """Return a whole model of about that size; no two seeds have the same bytes."""
    return _model(size_bytes, seed, "token_embd.weight", [])


def shard_bytes(number: int, count: int, size_bytes: int = 4096, seed: int = 0) -> bytes:
    """Return one of ``count`` shards, ``number`` from 1."""
    pieces = [_u16("split.no", number - 1), _u16("split.count", count)]
    pieces.append(_i32("split.tensors.count", count))
    name = "token_embd.weight" if number == 1 else f"blk.{number}.ffn_up.weight"
    return _model(size_bytes, seed + number, name, pieces)


def _model(size_bytes: int, seed: int, name: str, pairs: list[bytes]) -> bytes:
    elements = max(1, size_bytes // 4)
    pieces = GgufPieces()
    width = pair("llama.embedding_length", U32, _WIDTH.to_bytes(4, "little"))
    pieces.pairs = [text_pair("general.architecture", "llama"), width, *pairs]
    pieces.tensors = [tensor(name, [elements], _F32)]
    source = random.Random(seed)
    pieces.data = b"".join(
        source.randbytes(min(_AT_ONCE_BYTES, 4 * elements - start))
        for start in range(0, 4 * elements, _AT_ONCE_BYTES)
    )
    return pieces.to_bytes()


def _u16(key: str, value: int) -> bytes:
    return pair(key, 2, value.to_bytes(2, "little"))


def _i32(key: str, value: int) -> bytes:
    return pair(key, 5, value.to_bytes(4, "little"))


def projector_bytes(seed: int = 0) -> bytes:
    """Return a projector for models as wide as these."""
    pieces = GgufPieces()
    pieces.pairs = [
        text_pair("general.architecture", "clip"),
        text_pair("general.type", "mmproj"),
        pair("clip.has_vision_encoder", _BOOL, b"\1"),
    ]
    pieces.tensors = [tensor("mm.0.weight", [_WIDTH], _F32)]
    pieces.data = random.Random(seed).randbytes(64)
    return pieces.to_bytes()


def home_for(folder: Path, hub: LocalHub, token: str = "") -> Home:
    """Return a data directory whose hub is ``hub``, whatever tokens this machine has."""
    return Home.make(
        folder,
        HF_ENDPOINT=hub.endpoint,
        HF_TOKEN=token,
        HUGGING_FACE_HUB_TOKEN="",
        HF_TOKEN_PATH="",
        HF_HOME=str(folder / "hf"),
    )


def files_below(home: Home) -> list[str]:
    """Return the names of all files that were fetched, whole or in part."""
    return sorted(path.name for path in (home.path / "models").rglob("*") if path.is_file())
