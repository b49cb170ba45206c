"""gglib from Python: ``async with gglib.open() as lib``."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gglib.bootstrap import compose
from gglib.domain.model import Model
from gglib.domain.ownership import OwnerKind
from gglib.logs import SilentSink
from gglib.ports.event_sink import EventSink
from gglib.services.models import ModelService
from gglib.services.routing.router import Lease, Router, open_router
from gglib.services.serving import RunningServer, ServingService
from gglib.settings import load_settings

__all__ = ["Library", "open_library"]


class Library:
    """Models and servers of one data directory, in this process."""

    def __init__(self, models: ModelService, serving: ServingService, router: Router) -> None:
        self.models = models
        """The models by name: ``add``, ``list``, ``resolve``, ``remove``."""
        self._serving = serving
        self._router = router

    @asynccontextmanager
    async def serve(
        self, model: Model | str, *, engine: str | None = None, **overrides: Any
    ) -> AsyncIterator[RunningServer]:
        """Serve ``model`` (or the one of that name) for the block: ready inside, stopped after it.

        ``overrides`` are fields of ``ServerConfig`` that a model may set, such as
        ``context_size`` (tokens) or ``gpu_layers``. Every call has a server of its own.

        Raises:
            ModelNotFound, ModelFileMissing: there is no such model, or its file is gone.
            EngineNotFound, EngineCannot: nothing here can serve it, or serve it so.
            InvalidValue: an override is wrong.
            StartFailed, StartTimeout: it did not become ready.
        """
        found = await self._find(model)
        server = await self._serving.start(found, overrides=overrides, engine=engine)
        try:
            yield server
        finally:
            await self._serving.stop(server)

    @asynccontextmanager
    async def lease(self, model: Model | str) -> AsyncIterator[Lease]:
        """Hold the right to send a request to ``model`` for the block.

        The model is swapped in if need be, when it is this request's turn; it stays in memory
        after the block until another needs its place.

        Raises:
            ModelNotFound: there is no such model.
            AdmissionError: the queue is full, the model was unloaded, or the library closes.
            StartFailed, StartTimeout: it did not become ready.
        """
        async with self._router.lease(await self._find(model)) as lease:
            yield lease

    async def _find(self, model: Model | str) -> Model:
        if isinstance(model, Model):
            return model
        return (await self.models.resolve(model)).model


@asynccontextmanager
async def open_library(
    data_dir: Path | str | None = None,
    *,
    config: Path | str | None = None,
    events: EventSink | None = None,
) -> AsyncIterator[Library]:
    """Open gglib for the block; what it started is stopped at the end.

    ``data_dir`` defaults to ``GGLIB_HOME``, else the platform's place for data; ``config`` to
    ``GGLIB_CONFIG``, else ``gglib.toml`` in the data directory, if it is there.

    Raises:
        ConfigurationError: a setting is wrong.
        DataDirectoryUnusable, DatabaseCorrupt, DatabaseTooNew: its data cannot be used.
    """
    flags = {
        name: Path(value)
        for name, value in (("data_dir", data_dir), ("config", config))
        if value is not None
    }
    settings = load_settings(flags=flags, environ=os.environ).settings
    async with compose(settings, events=events or SilentSink()) as parts:
        serving = await parts.serving(OwnerKind.LIBRARY)
        await parts.reconcile()
        error: Exception | None = None
        async with open_router(serving, queue_limit=settings.gateway.queue_limit) as router:
            try:
                yield Library(await parts.models(), serving, router)
            except Exception as raised:
                # Kept from the router's task group, which would wrap it.
                error = raised
            finally:
                await serving.stop_all()
        if error is not None:
            raise error
