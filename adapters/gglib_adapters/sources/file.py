"""Model files on this machine's disks."""

from __future__ import annotations

import hashlib
import io
import re
import unicodedata
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import attrs

from gglib.domain.file_mark import FileMark
from gglib.domain.projector import Projector
from gglib.errors import InvalidModelFile
from gglib.ports.context import AdapterContext
from gglib.ports.model_source import FolderSurvey, LocatedModel, ModelSource
from gglib_adapters.sources.bounded_reader import MalformedFile, open_regular
from gglib_adapters.sources.facts import facts_of
from gglib_adapters.sources.folders import survey_folder
from gglib_adapters.sources.gguf_header import GgufHeader, read_gguf_header
from gglib_adapters.sources.projector_files import projectors_in
from gglib_adapters.sources.shards import shard_paths, stem_without_shard

__all__ = ["FileModelSource", "absolute_path", "open_file_source", "suggested_name"]

_NAMELESS = re.compile(r"sha256[-:][0-9a-f]{64}")
_MAX_NAME = 200
_DIGEST_BYTES = 16 << 20


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

    async def projectors(self, folder: Path) -> tuple[Projector, ...]:
        """Return the projectors among the ``.gguf`` files in ``folder``."""
        return await anyio.to_thread.run_sync(projectors_in, folder, abandon_on_cancel=True)

    async def survey(self, folder: str, known: Collection[Path]) -> FolderSurvey:
        """List the ``.gguf`` files in ``folder`` and below; see the port."""
        return await anyio.to_thread.run_sync(
            lambda: survey_folder(absolute_path(folder), known), abandon_on_cancel=True
        )

    async def digest(self, path: Path, on_bytes: Callable[[int], None] | None = None) -> FileMark:
        """Read the whole file, 16 MiB at a time; see the port."""
        digest = hashlib.sha256()

        def read_on(file: io.FileIO) -> int:
            content = file.read(_DIGEST_BYTES)
            digest.update(content)
            return len(content)

        with open_regular(path) as (file, mark):
            while count := await anyio.to_thread.run_sync(read_on, file):
                if on_bytes is not None:
                    on_bytes(count)
        return attrs.evolve(mark, sha256=digest.hexdigest())

    async def delete(self, path: Path) -> None:
        """Delete the file; see the port."""
        try:
            await anyio.Path(path).unlink(missing_ok=True)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InvalidModelFile(path, f"cannot be deleted: {reason}") from error


def _locate(reference: str) -> LocatedModel:
    path = absolute_path(reference)
    # Read first: a name that cannot be a path, or a directory, gets its own reason.
    asked = read_gguf_header(path)
    paths = shard_paths(path)
    first, *others = (asked if shard == path else read_gguf_header(shard) for shard in paths)
    try:
        _check_split(first, len(paths))
        facts = facts_of(first, *(header.tensors for header in others))
    except MalformedFile as error:
        raise InvalidModelFile(paths[0], str(error)) from error
    marks = (first.mark, *(header.mark for header in others))
    return LocatedModel(
        paths=paths,
        size_bytes=sum(mark.size_bytes for mark in marks),
        facts=facts,
        suggested_name=suggested_name(paths[0].name, facts.display_name),
        marks=marks,
    )


def absolute_path(reference: str) -> Path:
    """Return the path that a user means: ``~`` is a home, the rest from the working directory."""
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
    # Letters that only look different (full-width, ligatures) become the plain ones.
    name = unicodedata.normalize("NFKC", name)
    name = "".join(letter if letter.isprintable() else " " for letter in name)
    name = re.sub(r"[/\\]+", "-", name)
    name = re.sub(r"\.\.+", ".", name)[:_MAX_NAME].strip()
    return name.lstrip("-. ").rstrip() or "model"
