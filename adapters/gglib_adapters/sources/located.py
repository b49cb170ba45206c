"""What the headers of a model's files make together."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from gglib.errors import InvalidModelFile
from gglib.ports.model_source import LocatedModel
from gglib_adapters.sources.bounded_reader import MalformedFile
from gglib_adapters.sources.facts import facts_of
from gglib_adapters.sources.gguf_header import GgufHeader
from gglib_adapters.sources.shards import stem_without_shard

__all__ = ["located_from", "suggested_name"]

_NAMELESS = re.compile(r"sha256[-:][0-9a-f]{64}")
_MAX_NAME = 200


def located_from(paths: tuple[Path, ...], headers: Sequence[GgufHeader]) -> LocatedModel:
    """Return the model of these files, the first shard first.

    Raises:
        InvalidModelFile: they are not whole together.
    """
    first, *others = headers
    try:
        _check_split(first, len(paths))
        facts = facts_of(first, *(header.tensors for header in others))
    except MalformedFile as error:
        raise InvalidModelFile(paths[0], str(error)) from error
    marks = tuple(header.mark for header in headers)
    return LocatedModel(
        paths=paths,
        size_bytes=sum(mark.size_bytes for mark in marks),
        facts=facts,
        suggested_name=suggested_name(paths[0].name, facts.display_name),
        marks=marks,
    )


def _check_split(first: GgufHeader, found: int) -> None:
    count = first.metadata.get("split.count", 0)
    if isinstance(count, int) and count > 1 and count != found:
        raise MalformedFile(
            f"one of {count} shards, whose name must end in '-00001-of-{count:05d}.gguf'"
        )


def suggested_name(file_name: str, title: str | None = None) -> str:
    """Return a valid model name for a file; ``title`` serves where the file's is a checksum."""
    name = stem_without_shard(file_name)
    if title is not None and _NAMELESS.fullmatch(name):
        name = title
    # Letters that only look different (full-width, ligatures) become the plain ones.
    name = unicodedata.normalize("NFKC", name)
    name = "".join(letter if letter.isprintable() else " " for letter in name)
    name = re.sub(r"[/\\]+", "-", name)
    name = re.sub(r"\.\.+", ".", name)[:_MAX_NAME].strip()
    return name.lstrip("-. ").rstrip() or "model"
