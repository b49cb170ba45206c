"""LM Studio's folder: publisher, repository, files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.to_thread

from gglib.ports.context import AdapterContext
from gglib.ports.model_source import FoundFiles
from gglib.ports.model_store import ModelStore, StoredModel, StoreSurvey
from gglib_adapters.sources.folders import survey_folder
from gglib_adapters.sources.store_files import store_folder

__all__ = ["LmStudioStore", "open_lm_studio_store"]


@asynccontextmanager
async def open_lm_studio_store(context: AdapterContext) -> AsyncIterator[ModelStore]:
    """Enter LM Studio's folder; it holds nothing open."""
    del context
    yield LmStudioStore()


class LmStudioStore(ModelStore):
    """LM Studio's models, by the names of their files."""

    __slots__ = ()

    async def survey(self, folder: Path | None, known: Collection[Path]) -> StoreSurvey:
        """List the models in the folder; see the port. Links are followed, as by a scan."""
        return await anyio.to_thread.run_sync(_survey, folder, known, abandon_on_cancel=True)


def _folders() -> Iterator[Path]:
    yield Path.home() / ".lmstudio" / "models"
    yield Path.home() / ".cache" / "lm-studio" / "models"


def _survey(folder: Path | None, known: Collection[Path]) -> StoreSurvey:
    root = store_folder("LM Studio", folder, _folders())
    found = survey_folder(root, known)
    return StoreSurvey(
        folder=root,
        models=tuple(_stored(root, files) for files in found.models),
        projectors=found.projectors,
        passed_over=found.passed_over,
        vanished=found.vanished,
    )


def _stored(root: Path, files: FoundFiles) -> StoredModel:
    parts = files.paths[0].relative_to(root).parts
    if len(parts) < 3:
        return StoredModel(files=files, qualifier=parts[0] if len(parts) > 1 else "")
    publisher, repository = parts[:2]
    return StoredModel(files=files, repository=f"{publisher}/{repository}", qualifier=publisher)
