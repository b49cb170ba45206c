"""Model files on this machine's disks."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.to_thread

from gglib.errors import InvalidModelFile
from gglib.ports.context import AdapterContext
from gglib.ports.model_source import LocatedModel, ModelSource
from gglib_adapters.sources.bounded_reader import MalformedFile
from gglib_adapters.sources.facts import facts_of
from gglib_adapters.sources.gguf_header import GgufHeader, read_gguf_header
from gglib_adapters.sources.shards import shard_paths, stem_without_shard

__all__ = ["FileModelSource", "open_file_source", "suggested_name"]

_NAMELESS = re.compile(r"sha256[-:][0-9a-f]{64}")
_MAX_NAME = 200


@asynccontextmanager
async def open_file_source(context: AdapterContext) -> AsyncIterator[ModelSource]:
    """Enter a source of local files; it holds nothing open."""
    del context
    yield FileModelSource()


class FileModelSource(ModelSource):
    """Locates GGUF files by path. Reads happen in a worker thread."""

    __slots__ = ()

    async def locate(self, reference: str) -> LocatedModel:
        """Find the file that ``reference`` names, with all shards, and read its headers.

        ``~`` is expanded. A link keeps its own name and is not followed in the result. The
        suffix does not matter: an Ollama blob is as good as a ``.gguf``.
        """
        return await anyio.to_thread.run_sync(_locate, reference, abandon_on_cancel=True)


def _locate(reference: str) -> LocatedModel:
    path = _absolute(reference)
    # Read first: a name that cannot be a path, or a directory, gets its own reason.
    asked = read_gguf_header(path)
    paths = shard_paths(path)
    first, *others = (asked if shard == path else read_gguf_header(shard) for shard in paths)
    try:
        _check_split(first, len(paths))
        facts = facts_of(first, *(header.tensors for header in others))
    except MalformedFile as error:
        raise InvalidModelFile(paths[0], str(error)) from error
    return LocatedModel(
        paths=paths,
        size_bytes=first.size_bytes + sum(header.size_bytes for header in others),
        facts=facts,
        suggested_name=suggested_name(paths[0].name, facts.display_name),
    )


def _absolute(reference: str) -> Path:
    path = Path(reference)
    try:
        path = path.expanduser()
    except RuntimeError:
        return path.absolute()
    if ".." in path.parts and "\0" not in reference:
        # Only the system can say what ".." means behind a link.
        return path.parent.resolve() / path.name
    return path.absolute()


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
    name = "".join(letter if letter.isprintable() else " " for letter in name)
    name = re.sub(r"[/\\]+", "-", name)
    name = re.sub(r"\.\.+", ".", name)[:_MAX_NAME].strip()
    return name.lstrip("-. ").rstrip() or "model"
