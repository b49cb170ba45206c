"""The composition root: settings to adapters to services, on one exit stack.

Adapters are entered when they are first asked for, so that a command pays for what it uses,
and left in reverse order, in the task that entered them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from gglib.domain.model import ModelDefaults, names_of_runners
from gglib.domain.ownership import Asker, Owner, OwnerKind
from gglib.errors import DataDirectoryUnusable
from gglib.given import Adapter, GivenAdapters, given_name
from gglib.opening import AdapterOpener, ByName, Place
from gglib.plugins import (
    DEVICE_INVENTORIES,
    DOWNLOADERS,
    ENGINE_INSTALLERS,
    ENGINES,
    MODEL_CATALOGS,
    MODEL_HUBS,
    MODEL_SOURCES,
    MODEL_STORES,
    PROCESS_RUNNERS,
    PROCESS_TABLES,
    PULL_QUEUES,
    SERVER_CLIENTS,
    SERVER_REGISTRIES,
    adapter_names,
    blamed,
)
from gglib.ports.clock import Clock
from gglib.ports.context import AdapterContext, EngineSet, RunnerSet
from gglib.ports.device_inventory import DeviceInventory, DeviceSurvey
from gglib.ports.downloader import Downloader
from gglib.ports.engine import Engine
from gglib.ports.engine_installer import EngineInstaller
from gglib.ports.event_sink import EventSink
from gglib.ports.far_files import FarFiles
from gglib.ports.model_catalog import ModelCatalog
from gglib.ports.model_hub import ModelHub
from gglib.ports.model_source import ModelSource
from gglib.ports.model_store import ModelStore
from gglib.ports.process_runner import ProcessRunner
from gglib.ports.process_table import ProcessTable
from gglib.ports.pull_queue import PullQueue
from gglib.ports.server_client import ServerClient
from gglib.ports.server_registry import ServerRegistry
from gglib.services.intent import DEFAULT_ENGINES
from gglib.services.machines import Machines
from gglib.services.models import Declaration, ModelService
from gglib.services.ownership import Reconciliation, reconcile
from gglib.services.serving import ServingService
from gglib.services.sources import FILES, ModelSources
from gglib.settings import DeclaredModel, Settings

if TYPE_CHECKING:
    from gglib.services.engine_installs import EngineInstalls
    from gglib.services.pool import Pool
    from gglib.services.pulling.service import PullService
    from gglib.services.routing.router import Router
    from gglib.services.routing.terms import Policy

__all__ = [
    "Composition",
    "SystemClock",
    "compose",
    "declarations_of",
    "make_data_dir",
    "policy_of",
]

P = TypeVar("P")

#: An engine section whose name is no installed engine describes a command.
_DEFAULT_ENGINE_KIND = "command"
_LLAMA_SERVER = "llama-server"
#: The runner of this machine: there unless another is the default and nobody asks for it.
_LOCAL = "local"


class SystemClock(Clock):
    """The machine's time."""

    __slots__ = ()

    def now(self) -> float:
        """See ``Clock``."""
        return time.time()

    # Asked twice for every request: not even a call of ours.
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        """See ``Clock``."""
        await anyio.sleep(seconds)


class Composition:
    """The parts of one process, each made once, when it is first asked for.

    A broken engine or runner is remembered, and told to whoever asks for it by name.
    """

    def __init__(
        self,
        stack: AsyncExitStack,
        settings: Settings,
        *,
        clock: Clock,
        events: EventSink,
        given: GivenAdapters,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.events = events
        self._given = given
        self._default_engine = settings.serving.engine or None
        self._parts: dict[str, Any] = {}
        self._opener = AdapterOpener(
            stack,
            AdapterContext(
                name="",
                settings={},
                data_dir=settings.data_dir,
                clock=clock,
                events=events,
                engines=EngineSet({}),
            ),
        )

    @property
    def default_runner(self) -> str:
        """The name of the runner for models that name none."""
        return self._given.runner_name or self.settings.serving.runner

    async def catalog(self) -> ModelCatalog:
        """Return the model catalog."""
        place = Place(group=MODEL_CATALOGS, port=ModelCatalog)  # type: ignore[type-abstract]
        return await self._only("catalog", place, "sqlite")

    async def registry(self) -> ServerRegistry:
        """Return the registry of servers."""
        place = Place(group=SERVER_REGISTRIES, port=ServerRegistry)  # type: ignore[type-abstract]
        return await self._only("registry", place, "sqlite")

    async def source(self) -> ModelSource:
        """Return the source of model files."""
        return await self._only("source", self._sources, FILES)

    async def process_table(self) -> ProcessTable:
        """Return this machine's processes."""
        place = Place(group=PROCESS_TABLES, port=ProcessTable)  # type: ignore[type-abstract]
        return await self._only("process_table", place, "psutil")

    async def devices(self) -> DeviceInventory:
        """Return this machine's memory, per device."""
        place = Place(group=DEVICE_INVENTORIES, port=DeviceInventory)  # type: ignore[type-abstract]
        return await self._only("devices", place, "system")

    async def server_client(self) -> ServerClient:
        """Return what asks running servers about themselves."""
        place = Place(group=SERVER_CLIENTS, port=ServerClient)  # type: ignore[type-abstract]
        return await self._only("server_client", place, "http")

    async def downloader(self) -> Downloader:
        """Return what fetches files from elsewhere."""
        place = Place(group=DOWNLOADERS, port=Downloader)  # type: ignore[type-abstract]
        return await self._only("downloader", place, "http")

    async def hub(self) -> ModelHub:
        """Return the hub that models are pulled from."""
        place = Place(group=MODEL_HUBS, port=ModelHub)  # type: ignore[type-abstract]
        return await self._only("hub", place, "hugging-face")

    async def pull_queue(self) -> PullQueue:
        """Return the queue of pulls."""
        place = Place(group=PULL_QUEUES, port=PullQueue)  # type: ignore[type-abstract]
        # Whoever keeps models elsewhere than in our database has none made for the queue.
        usual = "sqlite" if self._given.catalog is None else "memory"
        return await self._only("pull_queue", place, usual)

    async def pulls(self) -> PullService:
        """Return the service that fetches models from a hub."""
        # Here, since commands that fetch nothing need not pay for it.
        from gglib.services.memory import within
        from gglib.services.pulling.fetching import FileFetcher
        from gglib.services.pulling.service import PullService
        from gglib.services.pulling.shelving import Shelf

        async def survey() -> DeviceSurvey:
            return within(await (await self.devices()).survey(), self.settings.routing.budgets)

        hub, source, catalog = await self.hub(), await self.source(), await self.catalog()
        downloader, data_dir = await self.downloader(), self.settings.data_dir
        return PullService(
            hub=hub,
            fetcher=FileFetcher(hub=hub, downloader=downloader, source=source, data_dir=data_dir),
            shelf=Shelf(catalog=catalog, source=source, clock=self.clock, events=self.events),
            queue=await self.pull_queue(),
            models=await self.models(),
            catalog=catalog,
            survey=survey,
            data_dir=data_dir,
            clock=self.clock,
            events=self.events,
        )

    async def models(self) -> ModelService:
        """Return the models by name, those of the configuration included."""
        if "models" not in self._parts:
            self._parts["models"] = ModelService(
                await self.catalog(),
                ModelSources(
                    await self.source(),
                    names=self._source_names,
                    open_source=self.open_source,
                    blame=self._blame_source,
                ),
                clock=self.clock,
                events=self.events,
                declarations=declarations_of(self.settings),
                files_at=self._files_at,
                open_store=self.open_store,
            )
        models: ModelService = self._parts["models"]
        return models

    @asynccontextmanager
    async def open_source(self, name: str) -> AsyncIterator[ModelSource]:
        """Hold the model source of that name for the block.

        Raises:
            AdapterError: it is not installed, or broken.
        """
        given = self._given.sources.get(name)
        async with AsyncExitStack() as stack:
            yield await self._opener.open(self._sources, name, given=given, stack=stack)

    @asynccontextmanager
    async def open_store(self, name: str) -> AsyncIterator[ModelStore]:
        """Hold what another tool keeps of models for the block.

        Raises:
            AdapterError: it is not installed, or broken.
        """
        place = Place(group=MODEL_STORES, port=ModelStore)  # type: ignore[type-abstract]
        async with AsyncExitStack() as stack:
            opened = await self._opener.open(place, name, stack=stack)
            with blamed(MODEL_STORES, name):
                yield opened

    def _blame_source(self, name: str) -> AbstractContextManager[None]:
        kind = self.settings.sources.get(name, {}).get("kind", name)
        return blamed(MODEL_SOURCES, name, kind=None if name in self._given.sources else kind)

    async def engines(self) -> EngineSet:
        """Return the installed, the configured and the given engines.

        Raises:
            ConfigurationError: the section of one is wrong.
        """
        if "engines" not in self._parts:
            sections = self.settings.engines
            place = Place(group=ENGINES, port=Engine, sections=sections)  # type: ignore[type-abstract]
            found = ByName(await self._given_engines(place))
            asked = self._engines_asked_for()
            installed = adapter_names(ENGINES)
            names = [name for name in installed if name != _DEFAULT_ENGINE_KIND]
            for name in dict.fromkeys([*names, *sections]):
                if name not in found.working:
                    kind = name if name in installed else _DEFAULT_ENGINE_KIND
                    await self._opener.try_open(
                        found, place, name, asked=name in asked, usual_kind=kind
                    )
            engines = self._parts["engines"] = EngineSet(found.working, found.broken)
            self._opener.give_engines(engines)
        composed: EngineSet = self._parts["engines"]
        return composed

    async def engine_at(self, path: Path) -> Engine:
        """Return an engine that is the llama-server at ``path``, whatever the settings say."""
        sections = {_LLAMA_SERVER: {"path": str(path)}}
        place = Place(group=ENGINES, port=Engine, sections=sections)  # type: ignore[type-abstract]
        return await self._opener.open(place, _LLAMA_SERVER)

    async def engine_installs(self) -> EngineInstalls:
        """Return what gets and keeps engines.

        Raises:
            ConfigurationError: the section of one is wrong.
        """
        from gglib.services.engine_installs import EngineInstalls

        sections = self.settings.engines
        place = Place(group=ENGINE_INSTALLERS, port=EngineInstaller, sections=sections)  # type: ignore[type-abstract]
        # The usual one first.
        names = sorted(adapter_names(ENGINE_INSTALLERS), key=lambda name: name != _LLAMA_SERVER)
        installers = {name: await self._opener.open(place, name) for name in names}
        return EngineInstalls(installers, await self.downloader())

    async def runners(self) -> RunnerSet:
        """Return the runners by name: the default, the configured, the given, and the local one.

        Raises:
            ConfigurationError: the section of one is wrong.
        """
        if "runners" not in self._parts:
            await self.engines()
            sections = self.settings.runners
            place = Place(group=PROCESS_RUNNERS, port=ProcessRunner, sections=sections)  # type: ignore[type-abstract]
            found: ByName[ProcessRunner] = ByName()
            given = self._given.all_runners
            for name in await self._runner_names():
                if name in given:
                    found.working[name] = await self._opener.open(place, name, given=given[name])
                else:
                    await self._opener.try_open(found, place, name, asked=True)
            self._parts["runners"] = RunnerSet(found.working, found.broken)
        runners: RunnerSet = self._parts["runners"]
        return runners

    async def machines(self) -> Machines:
        """Return the machines where runners' servers run."""
        if "machines" not in self._parts:
            runners, source = await self.runners(), await self.source()
            self._parts["machines"] = Machines(runners, self.default_runner, source)
        machines: Machines = self._parts["machines"]
        return machines

    async def _files_at(self, runner: str) -> FarFiles | None:
        return (await self.runners())[runner].files

    async def serving(self, owner: OwnerKind) -> ServingService:
        """Return the service that starts and stops servers in the name of ``owner``."""
        node, pid, process_started_at = (await self.process_table()).identity()
        return ServingService(
            await self.runners(),
            self.default_runner,
            await self.registry(),
            await self.engines(),
            await self.server_client(),
            clock=self.clock,
            events=self.events,
            owner=Owner(kind=owner, pid=pid, process_started_at=process_started_at, node=node),
            start_timeout_s=self.settings.gateway.start_timeout_s,
            default_engine=self._default_engine,
        )

    @asynccontextmanager
    async def pool(self, serving: ServingService) -> AsyncIterator[tuple[Router, Pool]]:
        """Run a router over ``serving`` for the block, by the settings, and its pool.

        Raises:
            ConfigurationError: a budget is set for a device that is not here.
        """
        # Here, since commands that route nothing need not pay for it.
        from gglib.services.memory_ledger import MemoryLedger
        from gglib.services.pool import Pool
        from gglib.services.routing.planning import planner_for
        from gglib.services.routing.router import open_router

        routing, pool = self.settings.routing, self.settings.pool
        ledger = MemoryLedger(
            devices=await self.devices(),
            processes=await self.process_table(),
            catalog=await self.catalog(),
            models=await self.models(),
            registry=await self.registry(),
            machines=await self.machines(),
            clock=self.clock,
            events=self.events,
            limits=routing.budgets,
        )
        await ledger.open(serving.servers)
        async with open_router(
            serving,
            clock=self.clock,
            planner=planner_for(routing, pool, ledger.budgets),
            policy=policy_of(self.settings),
            ttl_s=pool.ttl_s,
            ledger=ledger,
        ) as router:
            yield (
                router,
                Pool(
                    router,
                    serving=serving,
                    ledger=ledger,
                    clock=self.clock,
                    events=self.events,
                    health_check_interval_s=pool.health_check_interval_s,
                ),
            )

    async def reconcile(
        self,
        asker: Asker = Asker.OTHER,
        runners: Mapping[str, ProcessRunner] | None = None,
    ) -> Reconciliation:
        """Make what is on record agree with what runs: done before anything is started.

        ``runners``: those whose servers are decided on; ``None``: all.
        """
        return await reconcile(
            await self.registry(),
            await self.runners() if runners is None else runners,
            processes=await self.process_table(),
            events=self.events,
            clock=self.clock,
            asker=asker,
        )

    async def _given_engines(self, place: Place[Engine]) -> dict[str, Engine]:
        engines: dict[str, Engine] = {}
        default = self._given.engine
        if default is not None:
            engine = await self._opener.open(place, given_name(default, ENGINES), given=default)
            engines[engine.name] = engine
            self._default_engine = engine.name
        for name, given in self._given.engines.items():
            engines[name] = await self._opener.open(place, name, given=given)
        return engines

    def _engines_asked_for(self) -> Collection[str]:
        declared = {model.engine for model in self.settings.models.values() if model.engine}
        defaults = DEFAULT_ENGINES if self._default_engine is None else [self._default_engine]
        return {*self.settings.engines, *declared, *defaults}

    async def _runner_names(self) -> Collection[str]:
        declared = [
            name
            for model in self.settings.models.values()
            for name in names_of_runners(model.runner)
        ]
        names = dict.fromkeys(
            [self.default_runner, *self.settings.runners, *self._given.runners, *declared]
        )
        if _LOCAL not in names and await self._local_is_needed():
            names[_LOCAL] = None
        return names

    async def _local_is_needed(self) -> bool:
        """Return whether a model names the local runner, or a server on record is its."""
        if any(record.runner == _LOCAL for record in await (await self.registry()).list()):
            return True
        models = await (await self.catalog()).list()
        return any(_LOCAL in model.defaults.runners for model in models)

    @property
    def _sources(self) -> Place[ModelSource]:
        sections = self.settings.sources
        return Place(group=MODEL_SOURCES, port=ModelSource, sections=sections)  # type: ignore[type-abstract]

    def _source_names(self) -> Collection[str]:
        return {*adapter_names(MODEL_SOURCES), *self.settings.sources, *self._given.sources}

    async def _only(self, part: str, place: Place[P], name: str) -> P:
        """Return the one adapter of its port: what was given, or the one of that name."""
        if part not in self._parts:
            given: Adapter[P] | None = getattr(self._given, part)
            used = name if given is None else given_name(given, place.group)
            self._parts[part] = await self._opener.open(place, used, given=given)
        found: P = self._parts[part]
        return found


@asynccontextmanager
async def compose(
    settings: Settings,
    *,
    events: EventSink,
    clock: Clock | None = None,
    given: GivenAdapters | None = None,
) -> AsyncIterator[Composition]:
    """Hold a composition for the block; its adapters are left at the end.

    Raises:
        DataDirectoryUnusable: the data directory cannot be made or entered.
    """
    make_data_dir(settings.data_dir)
    async with AsyncExitStack() as stack:
        yield Composition(
            stack,
            settings,
            clock=SystemClock() if clock is None else clock,
            events=events,
            given=given or GivenAdapters(),
        )


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


def policy_of(settings: Settings) -> Policy:
    """Return how the scheduler is to weigh, by the settings."""
    from gglib.services.routing.terms import Policy

    return Policy(
        queue_limit=settings.gateway.queue_limit,
        patience_factor=settings.routing.patience_factor,
        max_wait_s=settings.pool.max_wait_s,
        max_drain_s=settings.routing.max_drain_s,
        min_size=settings.pool.min_size,
        finish_loads=settings.routing.finish_loads,
    )


def declarations_of(settings: Settings) -> list[Declaration]:
    """Return the models that the settings file declares."""
    return [_declaration(name, declared) for name, declared in settings.models.items()]


def _declaration(name: str, declared: DeclaredModel) -> Declaration:
    return Declaration(
        name=name,
        path=declared.path,
        aliases=declared.aliases,
        profiles=declared.profiles,
        defaults=ModelDefaults(
            server=declared.server,
            inference=declared.inference,
            set_parameters=declared.set_parameters,
            strip_parameters=declared.strip_parameters,
            concurrency_limit=declared.concurrency_limit,
            ttl_s=declared.ttl_s,
            pinned=declared.pinned,
            priority=declared.priority,
            memory_bytes=declared.memory_bytes,
            engine=declared.engine,
            runner=declared.runner,
            replicas=declared.replicas,
        ),
    )
