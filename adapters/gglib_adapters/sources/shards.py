"""Models in several files, as llama-gguf-split names them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from gglib.errors import ModelFileMissing

__all__ = ["missing_shards", "shard_names", "shard_paths", "stem_without_shard"]

#: A name may claim 99,999 shards; no model has so many.
_MAX_SHARDS = 1000

_SHARD = re.compile(
    r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)", re.ASCII
)


def _match(name: str) -> re.Match[str] | None:
    match = _SHARD.fullmatch(name)
    if match is None or not 1 <= int(match["number"]) <= int(match["count"]) <= _MAX_SHARDS:
        return None
    return match


def shard_paths(path: Path) -> tuple[Path, ...]:
    """Return every file of the model that ``path`` is part of, the first shard first.

    A name that is not ``…-00001-of-00003.gguf`` (of 1000 at most) is a whole model.

    Raises:
        ModelFileMissing: shards are not there; names them, the first one as its path.

    Source: llama.cpp, llama_split_path ("%s-%05d-of-%05d.gguf"), build 11434.
    """
    match = _match(path.name)
    if match is None:
        return (path,)
    paths = tuple(path.with_name(name) for name in shard_names(path.name))
    missing = [shard for shard in paths if not shard.exists()]
    if missing:
        raise missing_shards(missing)
    return paths


def missing_shards(missing: Sequence[Path]) -> ModelFileMissing:
    """Return the error that names the shards that are not there."""
    return ModelFileMissing(missing[0], others_missing=tuple(missing[1:]))


def shard_names(name: str) -> tuple[str, ...]:
    """Return the names of all files of the model that the file ``name`` is part of, in order."""
    match = _match(name)
    if match is None:
        return (name,)
    stem, count, suffix = match["stem"], match["count"], match["suffix"]
    return tuple(f"{stem}-{number:05d}-of-{count}{suffix}" for number in range(1, int(count) + 1))


def stem_without_shard(name: str) -> str:
    """Return a model file's name without its suffix and shard numbers."""
    match = _match(name)
    if match is not None and match["stem"]:
        return match["stem"]
    return name[: -len(".gguf")] if name.lower().endswith(".gguf") else name
