"""A model service on a real catalog and real files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gglib.bootstrap import SystemClock
from gglib.ports.model_catalog import ModelCatalog
from gglib.services.models import Declaration, ModelService
from gglib.testing.contexts import RecordingSink, make_context
from gglib_adapters.catalog.sqlite import open_sqlite_catalog
from gglib_adapters.sources.file import open_file_source
from gglib_adapters.sources.hugging_face import open_hugging_face_store
from gglib_adapters.sources.lm_studio import open_lm_studio_store
from gglib_adapters.sources.ollama import open_ollama_store

__all__ = ["ModelHouse", "open_model_house"]

STORES = {
    "huggingface": open_hugging_face_store,
    "lm-studio": open_lm_studio_store,
    "ollama": open_ollama_store,
}


class ModelHouse:
    """The models of one data directory, and what happens to them."""

    def __init__(self, models: ModelService, catalog: ModelCatalog, events: RecordingSink) -> None:
        self.models = models
        self.catalog = catalog
        self.events = events

    async def names(self) -> list[str]:
        """Return what is listed."""
        return [model.name for model in await self.models.list()]


@asynccontextmanager
async def open_model_house(folder: Path, *declarations: Declaration) -> AsyncIterator[ModelHouse]:
    """Open the models of ``folder``, as one process does."""
    async with (
        open_sqlite_catalog(make_context(folder)) as catalog,
        open_file_source(make_context(folder)) as source,
    ):
        events = RecordingSink()
        models = ModelService(
            catalog,
            source,
            clock=SystemClock(),
            events=events,
            declarations=declarations,
            open_store=lambda name: STORES[name](make_context(folder)),
        )
        yield ModelHouse(models, catalog, events)
