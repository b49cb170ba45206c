"""Ollama's store: manifests that name tags, and blobs with what they are made of."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import anyio.to_thread

from gglib.errors import InvalidModelFile, ModelError
from gglib.ports.context import AdapterContext
from gglib.ports.model_source import FoundFiles, PassedOver
from gglib.ports.model_store import ModelStore, StoredModel, StoreSurvey
from gglib_adapters.sources.folders import gone_below
from gglib_adapters.sources.ollama_manifest import OllamaTag, read_tag
from gglib_adapters.sources.ollama_params import defaults_of
from gglib_adapters.sources.projector_files import find_projectors
from gglib_adapters.sources.store_files import folders_in, is_there, names_in, store_folder

__all__ = ["SYSTEM_FOLDER", "OllamaStore", "open_ollama_store"]

T = TypeVar("T")

#: Of Ollama as a service.
SYSTEM_FOLDER = Path("/usr/share/ollama/.ollama/models")
_QUALIFIER = "ollama"
#: Kinds of layers that a user may miss, and why they are not taken.
_LEFT_OUT = {
    "adapter": "adapter: gglib does not apply it",
    "messages": "messages: requests say them",
    "system": "system prompt: requests say it",
    "template": "template: the GGUF file's own is used",
}


@asynccontextmanager
async def open_ollama_store(context: AdapterContext) -> AsyncIterator[ModelStore]:
    """Enter Ollama's store; it holds nothing open."""
    del context
    yield OllamaStore()


class OllamaStore(ModelStore):
    """Ollama's models. Tags of the same weights and parameters are one, with several names."""

    __slots__ = ()

    async def survey(self, folder: Path | None, known: Collection[Path]) -> StoreSurvey:
        """List the models of the store; see the port."""
        return await anyio.to_thread.run_sync(_survey, folder, known, abandon_on_cancel=True)


def _folders() -> Iterator[Path]:
    if said := os.environ.get("OLLAMA_MODELS"):
        yield Path(said).absolute()
        return
    yield Path.home() / ".ollama" / "models"
    yield SYSTEM_FOLDER


def _survey(folder: Path | None, known: Collection[Path]) -> StoreSurvey:
    store = store_folder("Ollama", folder, _folders())
    names_in(store)
    if not is_there(store / "manifests"):
        raise InvalidModelFile(store, "no store of Ollama's: it has no folder 'manifests'")
    passed_over: list[PassedOver] = []
    tags: list[OllamaTag] = []
    for manifest in _manifests(store / "manifests", passed_over):
        try:
            tags.append(read_tag(store, manifest))
        except ModelError as error:
            passed_over.append(_passed_over(manifest, error))
    groups: dict[tuple[Path, Path | None, str], list[OllamaTag]] = {}
    for tag in sorted(tags, key=_rank):
        params = json.dumps(tag.params, sort_keys=True)
        groups.setdefault((tag.model.path, tag.projector, params), []).append(tag)
    models = [_stored(group) for group in groups.values()]
    return StoreSurvey(
        folder=store,
        models=tuple(sorted(models, key=lambda model: model.names)),
        passed_over=tuple(passed_over),
        vanished=gone_below(store, known),
    )


def _manifests(folder: Path, passed_over: list[PassedOver]) -> Iterator[Path]:
    """Return what lies four levels deep: registry, namespace, model, tag."""
    level = [folder]
    for _ in range(3):
        level = [below for each in level for below in _listed(folders_in, each, passed_over)]
    for model in level:
        yield from (model / name for name in _listed(names_in, model, passed_over))


def _listed(
    entries_of: Callable[[Path], list[T]], folder: Path, passed_over: list[PassedOver]
) -> list[T]:
    try:
        return entries_of(folder)
    except ModelError as error:
        passed_over.append(_passed_over(folder, error))
        return []


def _passed_over(path: Path, error: ModelError) -> PassedOver:
    if isinstance(error, InvalidModelFile):
        reason = error.reason if error.path == path else str(error)
        return PassedOver(path=path, reason=reason)
    return PassedOver(path=path, reason="no such file")


def _rank(tag: OllamaTag) -> tuple[bool, bool, str]:
    """Order tags so that the first says best what all of them are."""
    return not tag.is_plain, tag.names[0].endswith(":latest"), tag.names[0]


def _stored(tags: list[OllamaTag]) -> StoredModel:
    first = tags[0]
    defaults, left_out = defaults_of(first.params)
    projector = next(find_projectors([first.projector]), None) if first.projector else None
    if first.projector is not None and projector is None:
        left_out += ("projector: its file is none that can be read",)
    for tag in tags:
        told = [_LEFT_OUT[kind] for kind in sorted(tag.others) if kind in _LEFT_OUT]
        left_out += tuple(each if tag is first else f"{tag.names[0]}: {each}" for each in told)
    return StoredModel(
        files=FoundFiles(paths=(first.model.path,), marks=(first.model.mark,)),
        repository=first.repository,
        revision=first.digest,
        alone=True,
        names=tuple(name for tag in tags for name in tag.names),
        qualifier=_QUALIFIER,
        projector=projector,
        defaults=defaults,
        left_out=left_out,
    )
