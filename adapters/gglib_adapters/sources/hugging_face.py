"""The Hugging Face cache: of each repository, snapshots whose files are links to blobs.

Source: huggingface_hub 1.0, constants.py and "Understand caching".
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.to_thread
import attrs

from gglib.domain.file_mark import FileMark
from gglib.domain.projector import Projector
from gglib.errors import InvalidModelFile, ModelError
from gglib.ports.context import AdapterContext
from gglib.ports.model_source import FoundFiles, PassedOver
from gglib.ports.model_store import ModelStore, StoredModel, StoreSurvey
from gglib_adapters.sources.folders import gone_below, survey_folder
from gglib_adapters.sources.store_files import folders_in, is_there, read_small, store_folder

__all__ = ["HuggingFaceStore", "open_hugging_face_store"]

_PREFIX = "models--"
_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_REVISION = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_REF_BYTES = 1024


@asynccontextmanager
async def open_hugging_face_store(context: AdapterContext) -> AsyncIterator[ModelStore]:
    """Enter the Hugging Face cache; it holds nothing open."""
    del context
    yield HuggingFaceStore()


class HuggingFaceStore(ModelStore):
    """The models in the cache: of each repository, those of its main revision."""

    __slots__ = ()

    async def survey(self, folder: Path | None, known: Collection[Path]) -> StoreSurvey:
        """List the models in the cache; see the port.

        Of a file that is ``known`` elsewhere, by another way, there is no second model.
        """
        return await anyio.to_thread.run_sync(_survey, folder, known, abandon_on_cancel=True)


def _folders() -> Iterator[Path]:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if said := os.environ.get(name):
            yield Path(said).expanduser().absolute()
            return
    if home := os.environ.get("HF_HOME"):
        yield Path(home).expanduser().absolute() / "hub"
        return
    cache = os.environ.get("XDG_CACHE_HOME")
    yield (Path(cache) if cache else Path.home() / ".cache") / "huggingface" / "hub"


def _survey(folder: Path | None, known: Collection[Path]) -> StoreSurvey:
    root = store_folder("Hugging Face", folder, _folders())
    models: list[StoredModel] = []
    projectors: list[Projector] = []
    passed_over: list[PassedOver] = []
    elsewhere = frozenset(os.path.realpath(path) for path in known if not path.is_relative_to(root))
    for place in folders_in(root):
        if not place.name.startswith(_PREFIX):
            continue
        try:
            repository = _repository(place)
            snapshot = _snapshot(place)
            if snapshot is None:
                continue
            found = survey_folder(snapshot, ())
        except ModelError as error:
            reason = error.reason if isinstance(error, InvalidModelFile) else "no such file"
            passed_over.append(PassedOver(path=place, reason=reason))
            continue
        projectors += found.projectors
        passed_over += found.passed_over
        models += [
            StoredModel(
                files=_with_digests(files),
                repository=repository,
                revision=snapshot.name,
                qualifier=repository.partition("/")[0],
            )
            for files in found.models
            if os.path.realpath(files.paths[0]) not in elsewhere
        ]
    return StoreSurvey(
        folder=root,
        models=tuple(models),
        projectors=tuple(projectors),
        passed_over=tuple(passed_over),
        vanished=gone_below(root, known),
    )


def _repository(place: Path) -> str:
    name = place.name.removeprefix(_PREFIX).replace("--", "/")
    if not _REPOSITORY.fullmatch(name) or ".." in name:
        raise InvalidModelFile(place, "its name is not that of a repository")
    return name


def _snapshot(place: Path) -> Path | None:
    """Return the snapshot that ``main`` names, else the newest; ``None``: there is none."""
    if not is_there(place / "snapshots"):
        return None
    main = place / "refs" / "main"
    if is_there(main):
        said = read_small(main, _MAX_REF_BYTES).strip().decode("ascii", "replace")
        if not _REVISION.fullmatch(said):
            raise InvalidModelFile(place, f"damaged: refs/main names {said[:60]!r}, no revision")
        if is_there(place / "snapshots" / said):
            return place / "snapshots" / said
    return _newest(path for path in folders_in(place / "snapshots") if _is_revision(path))


def _is_revision(path: Path) -> bool:
    return _REVISION.fullmatch(path.name) is not None


def _newest(paths: Iterable[Path]) -> Path | None:
    return max(paths, key=lambda path: (path.stat().st_mtime_ns, path.name), default=None)


def _with_digests(files: FoundFiles) -> FoundFiles:
    """Return the files with the SHA-256 that the names of their blobs are."""
    pairs = zip(files.paths, files.marks, strict=True)
    return attrs.evolve(files, marks=tuple(_with_digest(path, mark) for path, mark in pairs))


def _with_digest(path: Path, mark: FileMark) -> FileMark:
    try:
        name = path.readlink().name
    except OSError:
        return mark
    # Small files have a name of another kind: that of their content in git.
    return attrs.evolve(mark, sha256=name) if _DIGEST.fullmatch(name) else mark
