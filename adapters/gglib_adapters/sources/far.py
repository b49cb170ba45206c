"""Model files on another machine: the same reader, over pieces that come from there."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import anyio.from_thread
import anyio.to_thread
import attrs

from gglib.domain.file_mark import FileMark
from gglib.domain.projector import Projector
from gglib.errors import InvalidModelFile, ModelError, ModelFileMissing
from gglib.ports.far_files import FarFile, FarFiles, Missing
from gglib.ports.model_source import FolderSurvey, FoundFiles, LocatedModel, ModelSource, PassedOver
from gglib_adapters.sources.bounded_reader import BoundedReader, MalformedFile
from gglib_adapters.sources.folders import grouped
from gglib_adapters.sources.gguf_header import GgufHeader, parse_gguf_header, peeked_kind
from gglib_adapters.sources.located import located_from
from gglib_adapters.sources.projector_files import is_projector_kind, projector_of
from gglib_adapters.sources.shards import missing_shards, shard_names

__all__ = ["FarModelSource"]

_HEAD_BYTES = 4096
#: More is none of a header: over a line, a file that asks for more would take minutes.
_MOST_HEADER_BYTES = 64 << 20


class FarModelSource(ModelSource):
    """Locates GGUF files by their paths there. Of a file no more than its header is fetched."""

    __slots__ = ("_files",)

    def __init__(self, files: FarFiles) -> None:
        self._files = files

    async def locate(self, reference: str) -> LocatedModel:
        """Find the file there, with all shards, and read its headers. ``~`` is the home there."""
        (asked,) = await self._files.look([reference])
        if isinstance(asked, Missing):
            raise _error(Path(reference), asked)
        shards = [asked.path.with_name(name) for name in shard_names(asked.path.name)]
        if len(shards) == 1:
            files = [asked]
        else:
            found = await self._files.look([str(path) for path in shards])
            files = [file for file in found if isinstance(file, FarFile)]
            if lost := [
                path for path, file in zip(shards, found, strict=True) if isinstance(file, Missing)
            ]:
                raise missing_shards(lost)
        headers = [await self._header(file) for file in files]
        return located_from(tuple(file.path for file in files), headers)

    async def projectors(self, folder: Path) -> tuple[Projector, ...]:
        """Return the projectors that lie in ``folder`` itself."""
        try:
            there = await self._files.models_in(str(folder))
        except ModelError:
            return ()
        return await self._projectors([each for each in there.files if each.path.parent == folder])

    async def survey(self, folder: str, known: Collection[Path]) -> FolderSurvey:
        """List the ``.gguf`` files in ``folder`` and below; see the port."""
        there = await self._files.models_in(folder)
        files = {each.path: each for each in _each_once(there.files, known)}
        groups, incomplete = grouped(files)
        single = [files[paths[0]] for paths in groups if len(paths) == 1]
        projectors = await self._projectors(single)
        not_models = {projector.path for projector in projectors}
        below = sorted(path for path in known if path.is_relative_to(there.path))
        missed = [path for path in below if path not in files]
        looks = await self._files.look([str(path) for path in missed])
        troubles = [PassedOver(path=there.path, reason=reason) for reason in there.trouble]
        return FolderSurvey(
            models=tuple(
                FoundFiles(paths=paths, marks=tuple(files[path].mark for path in paths))
                for paths in groups
                if paths[0] not in not_models
            ),
            projectors=projectors,
            passed_over=(*incomplete, *troubles),
            vanished=tuple(
                path for path, look in zip(missed, looks, strict=True) if look == Missing()
            ),
        )

    async def digest(self, path: Path, on_bytes: Callable[[int], None] | None = None) -> FileMark:
        """Have the file read whole there; see the port."""
        (file,) = await self._files.look([str(path)])
        if isinstance(file, Missing):
            raise _error(path, file)
        return attrs.evolve(file.mark, sha256=await self._files.sha256(file, on_bytes))

    async def _projectors(self, files: Sequence[FarFile]) -> tuple[Projector, ...]:
        found = []
        heads = await self._files.heads([file.path for file in files])
        for file, head in zip(files, heads, strict=True):
            if is_projector_kind(*_kind_of(file, head)):
                try:
                    found.append(projector_of(file.path, await self._header(file)))
                except ModelError:
                    continue
        return tuple(found)

    async def _header(self, file: FarFile) -> GgufHeader:
        def read() -> GgufHeader:
            reader = BoundedReader(
                _FarRaw(self._files, file), file.mark, read_limit_bytes=_MOST_HEADER_BYTES
            )
            return parse_gguf_header(reader)

        try:
            return await anyio.to_thread.run_sync(read)
        except MalformedFile as error:
            raise InvalidModelFile(file.path, str(error)) from error


class _FarRaw(io.RawIOBase):
    """A far file as the reader wants it; for a worker thread."""

    def __init__(self, files: FarFiles, file: FarFile) -> None:
        super().__init__()
        self._files = files
        self._file = file
        self._offset = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place counted from the beginning."""
        assert whence == io.SEEK_SET
        self._offset = offset
        return offset

    def read(self, size: int = -1, /) -> bytes:
        """Fetch the next ``size`` bytes."""
        read: bytes = anyio.from_thread.run(self._files.read, self._file, self._offset, size)
        self._offset += len(read)
        return read


def _each_once(files: Sequence[FarFile], known: Collection[Path]) -> list[FarFile]:
    """Return each file by one way only: the known one, else the first."""
    chosen: dict[str, FarFile] = {}
    for file in files:
        key = file.identity or str(file.path)
        if key not in chosen or (file.path in known and chosen[key].path not in known):
            chosen[key] = file
    return list(chosen.values())


def _kind_of(file: FarFile, head: bytes) -> tuple[str | None, str | None]:
    mark = FileMark(size_bytes=min(file.mark.size_bytes, _HEAD_BYTES), mtime_ns=0)
    try:
        return peeked_kind(BoundedReader(io.BytesIO(head), mark, _HEAD_BYTES))
    except MalformedFile:
        return None, None


def _error(path: Path, missing: Missing) -> ModelError:
    if missing.reason:
        return InvalidModelFile(path, missing.reason)
    return ModelFileMissing(path)
