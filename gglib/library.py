"""gglib from Python: ``async with gglib.open() as lib``."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anyio

from gglib.bootstrap import compose
from gglib.domain.model import Model
from gglib.domain.ownership import OwnerKind
from gglib.given import Adapter, GivenAdapters, check_given
from gglib.logs import SilentSink
from gglib.ports.clock import Clock
from gglib.ports.device_inventory import DeviceInventory
from gglib.ports.engine import Engine
from gglib.ports.event_sink import EventSink
from gglib.ports.model_catalog import ModelCatalog
from gglib.ports.model_source import ModelSource
from gglib.ports.process_runner import ProcessRunner
from gglib.ports.process_table import ProcessTable
from gglib.ports.server_client import ServerClient
from gglib.ports.server_registry import ServerRegistry
from gglib.services.models import ModelService
from gglib.services.pool import EvictionCallback, Pool
from gglib.services.routing.router import Lease, Router
from gglib.services.serving import RunningServer, ServingService
from gglib.settings import Settings, load_settings

__all__ = ["Adapter", "Library", "hold_library", "open_library"]

_NONE: Mapping[str, Any] = MappingProxyType({})


class Library:
    """Models and servers of one data directory, in this process."""

    def __init__(
        self, models: ModelService, serving: ServingService, router: Router, pool: Pool
    ) -> None:
        self.models = models
        """The models by name: ``add``, ``scan``, ``list``, ``resolve``, ``configure`` and more."""
        self._serving = serving
        self._router = router
        self._pool = pool

    @property
    def servers(self) -> tuple[RunningServer, ...]:
        """The servers that run now in this library's name, oldest first."""
        return self._serving.servers

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
            AdapterError: its engine or runner is broken, or there is no such runner.
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

    def on_evicted(self, callback: EvictionCallback) -> None:
        """Have ``callback(model, device, reason)`` called when a leased model's server is gone.

        It is stopped by then. ``device`` is where most of it was, such as ``cpu`` or ``cuda0``;
        ``reason`` is ``swap`` (another model needed its place), ``changed`` (its model was
        changed), ``expired`` (its idle time was up), ``unhealthy``, ``surplus`` (its machine was
        away, and another server has taken its place), ``died`` or ``shutdown``.
        It may be a coroutine function: what it returns is awaited, for half a minute at most.
        What it raises becomes the event ``callback.failed``, and harms nobody. It is called on
        the library's event loop.
        """
        self._pool.on_evicted(callback)

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
    clock: Clock | None = None,
    runner: Adapter[ProcessRunner] | None = None,
    engine: Adapter[Engine] | None = None,
    catalog: Adapter[ModelCatalog] | None = None,
    registry: Adapter[ServerRegistry] | None = None,
    source: Adapter[ModelSource] | None = None,
    process_table: Adapter[ProcessTable] | None = None,
    devices: Adapter[DeviceInventory] | None = None,
    server_client: Adapter[ServerClient] | None = None,
    runners: Mapping[str, Adapter[ProcessRunner]] = _NONE,
    engines: Mapping[str, Adapter[Engine]] = _NONE,
    sources: Mapping[str, Adapter[ModelSource]] = _NONE,
) -> AsyncIterator[Library]:
    """Open gglib for the block; what it started is stopped at the end.

    ``data_dir`` defaults to ``GGLIB_HOME``, else the platform's place for data; ``config`` to
    ``GGLIB_CONFIG``, else ``gglib.toml`` in the data directory, if it is there.

    Every adapter can be replaced: by an instance of its port, which stays yours to open and
    close, or by a factory such as an entry point names (``(AdapterContext) ->
    AsyncContextManager``), which gglib enters and leaves.

    - ``runner``, ``engine``: serve every model that names no other. Servers of ``runner`` are
      recorded under the name of its class, or of its factory; ``engine`` has its own name.
    - ``catalog``, ``registry``: where models and servers are kept, instead of the database.
    - ``source``: finds model files; ``process_table``: tells who lives on this machine;
      ``devices``: tells what memory it has; ``server_client``: asks running servers.
    - ``runners``, ``engines``, ``sources``: more of them, by name, beside what is installed
      and configured; one of the same name takes the other's place.
    - ``clock``: where time comes from; ``events``: where events go, else nowhere.

    Raises:
        TypeError: what was given is no such adapter.
        InvalidValue: a name that was given is taken, or cannot be one.
        AdapterError: a factory that was given, or what the library cannot do without, is broken.
        ConfigurationError: a setting is wrong.
        DataDirectoryUnusable, DatabaseCorrupt, DatabaseTooNew: its data cannot be used.
    """
    for name, each, port in (("events", events, EventSink), ("clock", clock, Clock)):
        if each is not None:
            check_given(name, each, port, factory=False)
    given = GivenAdapters(
        runner=runner,
        engine=engine,
        catalog=catalog,
        registry=registry,
        source=source,
        process_table=process_table,
        devices=devices,
        server_client=server_client,
        runners=runners,
        engines=engines,
        sources=sources,
    )
    flags = {
        name: Path(value)
        for name, value in (("data_dir", data_dir), ("config", config))
        if value is not None
    }
    settings = load_settings(flags=flags, environ=os.environ).settings
    async with hold_library(settings, events=events, clock=clock, given=given) as library:
        yield library


@asynccontextmanager
async def hold_library(
    settings: Settings,
    *,
    events: EventSink | None = None,
    clock: Clock | None = None,
    given: GivenAdapters | None = None,
) -> AsyncIterator[Library]:
    """Open a library with these settings, and nothing from the environment, for the block."""
    sink = SilentSink() if events is None else events
    async with compose(settings, events=sink, clock=clock, given=given) as parts:
        serving = await parts.serving(OwnerKind.LIBRARY)
        await parts.reconcile()
        error: Exception | None = None
        async with parts.pool(serving) as (router, pool), anyio.create_task_group() as upkeep:
            upkeep.start_soon(pool.keep)
            try:
                yield Library(await parts.models(), serving, router, pool)
            except Exception as raised:
                # Kept from the router's task group, which would wrap it.
                error = raised
            finally:
                upkeep.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    await serving.stop_all()
        if error is not None:
            raise error
