"""Models in several files, as llama-gguf-split names them."""

from __future__ import annotations

import re
from pathlib import Path

from gglib.errors import ModelFileMissing

__all__ = ["shard_paths", "stem_without_shard"]

_SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)")


def _match(name: str) -> re.Match[str] | None:
    match = _SHARD.fullmatch(name)
    if match is None or not 1 <= int(match["number"]) <= int(match["count"]):
        return None
    return match


def shard_paths(path: Path) -> tuple[Path, ...]:
    """Return every file of the model that ``path`` is part of, the first shard first.

    A name that is not ``…-00001-of-00003.gguf`` is a whole model.

    Raises:
        ModelFileMissing: a shard is not there; names the first such one.

    Source: llama.cpp, llama_split_path ("%s-%05d-of-%05d.gguf"), build 11434.
    """
    match = _match(path.name)
    if match is None:
        return (path,)
    paths = []
    for number in range(1, int(match["count"]) + 1):
        shard = path.with_name(f"{match['stem']}-{number:05d}-of-{match['count']}{match['suffix']}")
        if not shard.exists():
            raise ModelFileMissing(shard)
        paths.append(shard)
    return tuple(paths)


def stem_without_shard(name: str) -> str:
    """Return a model file's name without its suffix and shard numbers."""
    match = _match(name)
    if match is not None and match["stem"]:
        return match["stem"]
    return name[: -len(".gguf")] if name.lower().endswith(".gguf") else name
