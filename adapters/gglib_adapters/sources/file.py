"""Model files on this machine's disks."""

from __future__ import annotations

import hashlib
import io
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
from gglib.ports.far_files import FarFiles
from gglib.ports.model_source import FolderSurvey, LocatedModel, ModelSource
from gglib_adapters.sources.bounded_reader import open_regular
from gglib_adapters.sources.far import FarModelSource
from gglib_adapters.sources.folders import survey_folder
from gglib_adapters.sources.gguf_header import read_gguf_header
from gglib_adapters.sources.located import located_from, suggested_name
from gglib_adapters.sources.projector_files import projectors_in
from gglib_adapters.sources.shards import shard_paths

__all__ = ["FileModelSource", "absolute_path", "open_file_source", "suggested_name"]

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

    def elsewhere(self, files: FarFiles) -> ModelSource:
        """Return the same for the files of another machine."""
        return FarModelSource(files)

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
    headers = (asked if shard == path else read_gguf_header(shard) for shard in paths)
    return located_from(paths, list(headers))


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
