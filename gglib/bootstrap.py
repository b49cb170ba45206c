"""The composition root: settings to adapters to services, on one exit stack.

Adapters are entered when they are first asked for, so that a command pays for what it uses,
and left in reverse order, in the task that entered them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio

from gglib.domain.model import ModelDefaults
from gglib.domain.ownership import Owner, OwnerKind
from gglib.errors import DataDirectoryUnusable
from gglib.plugins import (
    ENGINES,
    MODEL_CATALOGS,
    MODEL_SOURCES,
    PROCESS_RUNNERS,
    PROCESS_TABLES,
    SERVER_REGISTRIES,
    adapter_names,
    open_adapter,
)
from gglib.ports.clock import Clock
from gglib.ports.context import AdapterContext, EngineSet
from gglib.ports.engine import Engine
from gglib.ports.event_sink import EventSink
from gglib.ports.model_catalog import ModelCatalog
from gglib.ports.model_source import ModelSource
from gglib.ports.process_runner import ProcessRunner
from gglib.ports.process_table import ProcessTable
from gglib.ports.server_registry import ServerRegistry
from gglib.services.models import Declaration, ModelService
from gglib.services.ownership import Reconciliation, reconcile
from gglib.services.serving import ServingService
from gglib.settings import DeclaredModel, Settings

__all__ = ["Composition", "SystemClock", "compose", "make_data_dir"]

P = TypeVar("P")

#: An engine section whose name is no installed engine describes a command.
_DEFAULT_ENGINE_KIND = "command"
_DEFAULT_RUNNER = "local"


class SystemClock(Clock):
    """The machine's time."""

    __slots__ = ()

    def now(self) -> float:
        """See ``Clock``."""
        return time.time()

    def monotonic(self) -> float:
        """See ``Clock``."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See ``Clock``."""
        await anyio.sleep(seconds)


class Composition:
    """The parts of one process, each made once, when it is first asked for."""

    def __init__(
        self, stack: AsyncExitStack, settings: Settings, *, clock: Clock, events: EventSink
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.events = events
        self._stack = stack
        self._engine_set = EngineSet({})
        self._parts: dict[str, Any] = {}

    async def catalog(self) -> ModelCatalog:
        """Return the model catalog."""
        return await self._only("catalog", MODEL_CATALOGS, "sqlite", ModelCatalog)  # type: ignore[type-abstract]

    async def registry(self) -> ServerRegistry:
        """Return the registry of servers."""
        return await self._only("registry", SERVER_REGISTRIES, "sqlite", ServerRegistry)  # type: ignore[type-abstract]

    async def source(self) -> ModelSource:
        """Return the source of model files."""
        return await self._only("source", MODEL_SOURCES, "file", ModelSource)  # type: ignore[type-abstract]

    async def process_table(self) -> ProcessTable:
        """Return this machine's processes."""
        return await self._only("processes", PROCESS_TABLES, "psutil", ProcessTable)  # type: ignore[type-abstract]

    async def models(self) -> ModelService:
        """Return the models by name, those of the configuration included."""
        if "models" not in self._parts:
            self._parts["models"] = ModelService(
                await self.catalog(),
                await self.source(),
                clock=self.clock,
                events=self.events,
                declarations=[
                    _declaration(name, declared) for name, declared in self.settings.models.items()
                ],
            )
        models: ModelService = self._parts["models"]
        return models

    async def engines(self) -> EngineSet:
        """Return the installed and the configured engines."""
        if "engines" not in self._parts:
            installed = adapter_names(ENGINES)
            engines: dict[str, Engine] = {}
            names = [name for name in installed if name != _DEFAULT_ENGINE_KIND]
            for name in dict.fromkeys([*names, *self.settings.engines]):
                section = dict(self.settings.engines.get(name, {}))
                kind = section.pop("kind", name if name in installed else _DEFAULT_ENGINE_KIND)
                engines[name] = await self._open(ENGINES, kind, Engine, name, section)  # type: ignore[type-abstract]
            self._engine_set = self._parts["engines"] = EngineSet(engines)
        return self._engine_set

    async def runners(self) -> Mapping[str, ProcessRunner]:
        """Return the runners by name: the local one, and the configured."""
        if "runners" not in self._parts:
            await self.engines()
            runners: dict[str, ProcessRunner] = {}
            for name in dict.fromkeys([_DEFAULT_RUNNER, *self.settings.runners]):
                section = dict(self.settings.runners.get(name, {}))
                kind = section.pop("kind", name)
                runners[name] = await self._open(
                    PROCESS_RUNNERS,
                    kind,
                    ProcessRunner,  # type: ignore[type-abstract]
                    name,
                    section,
                )
            self._parts["runners"] = runners
        found: Mapping[str, ProcessRunner] = self._parts["runners"]
        return found

    async def serving(self, owner: OwnerKind) -> ServingService:
        """Return the service that starts and stops servers in the name of ``owner``."""
        node, pid, process_started_at = (await self.process_table()).identity()
        return ServingService(
            await self.runners(),
            _DEFAULT_RUNNER,
            await self.registry(),
            await self.engines(),
            clock=self.clock,
            events=self.events,
            owner=Owner(kind=owner, pid=pid, process_started_at=process_started_at, node=node),
            start_timeout_s=self.settings.gateway.start_timeout_s,
        )

    async def reconcile(self) -> Reconciliation:
        """Make what is on record agree with what runs: done before anything is started."""
        return await reconcile(
            await self.registry(),
            await self.runners(),
            processes=await self.process_table(),
            events=self.events,
            clock=self.clock,
        )

    async def _only(self, part: str, group: str, name: str, port: type[P]) -> P:
        if part not in self._parts:
            self._parts[part] = await self._open(group, name, port, name, {})
        found: P = self._parts[part]
        return found

    async def _open(
        self, group: str, kind: str, port: type[P], name: str, section: Mapping[str, Any]
    ) -> P:
        context = AdapterContext(
            name=name,
            settings=section,
            data_dir=self.settings.data_dir,
            clock=self.clock,
            events=self.events,
            engines=self._engine_set,
        )
        return await open_adapter(self._stack, group, kind, port, context)


@asynccontextmanager
async def compose(
    settings: Settings, *, events: EventSink, clock: Clock | None = None
) -> AsyncIterator[Composition]:
    """Hold a composition for the block; its adapters are left at the end.

    Raises:
        DataDirectoryUnusable: the data directory cannot be made or entered.
    """
    make_data_dir(settings.data_dir)
    async with AsyncExitStack() as stack:
        yield Composition(stack, settings, clock=clock or SystemClock(), events=events)


def make_data_dir(path: Path) -> None:
    """Make the data directory, for this user only.

    Raises:
        DataDirectoryUnusable: it cannot be made, or is no directory.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is not a directory" if path.exists() else error.strerror or str(error)
        raise DataDirectoryUnusable(path, reason) from None


def _declaration(name: str, declared: DeclaredModel) -> Declaration:
    return Declaration(
        name=name,
        path=declared.path,
        aliases=declared.aliases,
        defaults=ModelDefaults(
            server=declared.server,
            concurrency_limit=declared.concurrency_limit,
            engine=declared.engine,
            runner=declared.runner,
        ),
    )
