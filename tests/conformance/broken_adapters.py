"""Adapters that break one promise each: test_broken_adapters.py runs this file.

No test module by its name, so that nothing else does.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import attrs
import psutil
import pytest
from support.gguf_files import write_model

from gglib.bootstrap import SystemClock
from gglib.domain.config import ServerConfig
from gglib.domain.events import Event, ServerFailed
from gglib.domain.model import Model
from gglib.domain.ownership import ServerRecord
from gglib.domain.pull import Pull
from gglib.errors import EngineCannot, ModelFileMissing
from gglib.ports.clock import Clock
from gglib.ports.context import AdapterContext
from gglib.ports.device_inventory import Device, DeviceInventory, DeviceSurvey
from gglib.ports.engine import Engine, EngineCapabilities, EngineProbe
from gglib.ports.event_sink import EventSink
from gglib.ports.model_catalog import ModelCatalog
from gglib.ports.model_source import LocatedModel
from gglib.testing import (
    ClockContract,
    DeviceInventoryContract,
    EngineContract,
    EventSinkContract,
    MemoryModelCatalog,
    MemoryServerRegistry,
    ModelCatalogContract,
    ModelSourceContract,
    ProcessTableContract,
    PullQueueContract,
    ServerRegistryContract,
)
from gglib.testing.contracts.backends import Backend
from gglib.testing.contracts.engine import INTENTS
from gglib.testing.contracts.model_source import KnownModel
from gglib_adapters.catalog.memory_pulls import MemoryPullQueue
from gglib_adapters.process_table import PsutilProcessTable
from gglib_adapters.sources.file import FileModelSource

Opener = Callable[[AdapterContext], AbstractAsyncContextManager[Any]]


def opener(make: Callable[[], object]) -> Opener:
    """Return a factory of what ``make`` makes."""

    @asynccontextmanager
    async def opened(context: AdapterContext) -> AsyncIterator[object]:
        yield make()

    return opened


# Catalogs


class CatalogKit(ModelCatalogContract):
    """The contract on ``kind``; one event loop will do."""

    __test__ = False
    backends: Sequence[Backend] = ("asyncio",)
    shared_by_openings = False
    kind: ClassVar[type[MemoryModelCatalog]]

    def __init_subclass__(cls) -> None:
        cls.__test__ = True

    @pytest.fixture
    def open_catalog(self) -> Opener:
        return opener(self.kind)


class ForgetsIds(MemoryModelCatalog):
    """A removed model's name loses its id."""

    async def remove(self, model_id: int) -> None:
        model = await self.get(model_id)
        await super().remove(model_id)
        del self._ids[model.name]


class SortsLikePeople(MemoryModelCatalog):
    """Lists without regard to case."""

    async def list(self) -> list[Model]:
        return sorted(await super().list(), key=lambda model: model.name.lower())


class UpdatesInTwoSteps(MemoryModelCatalog):
    """Names first, the rest a moment later."""

    async def update(self, model: Model) -> None:
        before = await self.get(model.id)
        await super().update(attrs.evolve(model, size_bytes=before.size_bytes))
        await super().update(model)


class RemovesUnseen(MemoryModelCatalog):
    """Removing does not move the revision."""

    async def remove(self, model_id: int) -> None:
        await super().remove(model_id)
        self._revision -= 1


class EditsInTwoSteps(MemoryModelCatalog):
    """Reads, and writes a moment later."""

    async def edit(self, model_id: int, change: Callable[[Model], Model]) -> Model:
        return await ModelCatalog.edit(self, model_id, change)


class RoundsTimes(MemoryModelCatalog):
    """Keeps whole seconds."""

    def _add(self, model: Model) -> Model:
        return super()._add(attrs.evolve(model, added_at=float(int(model.added_at))))


class Complains(MemoryModelCatalog):
    """Finds damage where there is none."""

    async def check(self) -> Sequence[str]:
        return ["ok"]


class TestForgetsIds(CatalogKit):
    kind = ForgetsIds


class TestSortsLikePeople(CatalogKit):
    kind = SortsLikePeople
    backends = ("asyncio", "trio")  # Two runs of a test are one in the result.


class TestUpdatesInTwoSteps(CatalogKit):
    kind = UpdatesInTwoSteps


class TestRemovesUnseen(CatalogKit):
    kind = RemovesUnseen


class TestEditsInTwoSteps(CatalogKit):
    kind = EditsInTwoSteps


class TestRoundsTimes(CatalogKit):
    kind = RoundsTimes


class TestComplains(CatalogKit):
    kind = Complains


# Registries


class RegistryKit(ServerRegistryContract):
    """The contract on ``kind``."""

    __test__ = False
    backends: Sequence[Backend] = ("asyncio",)
    shared_by_openings = False
    kind: ClassVar[type[MemoryServerRegistry]]

    def __init_subclass__(cls) -> None:
        cls.__test__ = True

    @pytest.fixture
    def open_registry(self) -> Opener:
        return opener(self.kind)


class KeepsHandles(MemoryServerRegistry):
    """A handle that was on record stays, whatever is put."""

    async def put(self, record: ServerRecord) -> None:
        before = await self.get(record.server_id)
        if before is not None and record.handle is None:
            record = attrs.evolve(record, handle=before.handle)
        await super().put(record)


class SortsBySeconds(MemoryServerRegistry):
    """What was created within one second is in any order."""

    async def list(self) -> list[ServerRecord]:
        records = await super().list()
        return sorted(records, key=lambda record: (int(record.created_at), record.server_id))


class RemovesOnce(MemoryServerRegistry):
    """Removing what is not there is an error."""

    async def remove(self, server_id: str) -> None:
        if await self.get(server_id) is None:
            raise KeyError(server_id)
        await super().remove(server_id)


class TestKeepsHandles(RegistryKit):
    kind = KeepsHandles


class TestSortsBySeconds(RegistryKit):
    kind = SortsBySeconds


class TestRemovesOnce(RegistryKit):
    kind = RemovesOnce


# Engines


class SoundEngine(Engine):
    """Keeps every promise: it can set the context size, and nothing else."""

    known: ClassVar[frozenset[str]] = frozenset({"context_size"})

    @property
    def name(self) -> str:
        return "under-test"

    @property
    def capabilities(self) -> EngineCapabilities:
        return EngineCapabilities()

    @property
    def api_key_variable(self) -> str | None:
        return "KEY"

    async def probe(self) -> EngineProbe:
        await anyio.lowlevel.checkpoint()
        return EngineProbe(path=None, version=None, source="package")

    def command(self, config: ServerConfig, port: int) -> list[str]:
        plain = ServerConfig(model_id=0, model_name="plain", model_path="plain")
        for field in INTENTS:
            value = getattr(config, field)
            if field not in self.known and value != getattr(plain, field):
                raise EngineCannot(self.name, field, value, "leave it unset")
        size = [] if config.context_size is None else ["--context", str(config.context_size)]
        return ["serve", str(config.model_path), f"--port={port}", *size, *config.extra_args]


class EngineKit(EngineContract):
    """The contract on ``kind``."""

    __test__ = False
    backends: Sequence[Backend] = ("asyncio",)
    expressible = frozenset({"context_size"})
    kind: ClassVar[type[SoundEngine]]

    def __init_subclass__(cls) -> None:
        cls.__test__ = True

    @pytest.fixture
    def open_engine(self) -> Opener:
        return opener(self.kind)


class DropsThreads(SoundEngine):
    """Takes a number of threads, and does nothing with it."""

    known = frozenset({"context_size", "threads"})


class TellsItsKey(SoundEngine):
    """Gives its servers their key where all can read it."""

    def command(self, config: ServerConfig, port: int) -> list[str]:
        key = config.environment.get("KEY")
        program, *rest = super().command(config, port)
        return [program, *([] if key is None else ["--api-key", key]), *rest]


class PutsExtraFirst(SoundEngine):
    """Its own flags win over the user's."""

    def command(self, config: ServerConfig, port: int) -> list[str]:
        program, *rest = super().command(attrs.evolve(config, extra_args=()), port)
        return [program, *config.extra_args, *rest]


class SharesItsLists(SoundEngine):
    """Who changes what it returned changes what it returns."""

    @functools.cache  # noqa: B019 - the process ends soon
    def command(self, config: ServerConfig, port: int) -> list[str]:
        return super().command(config, port)


class TestSoundEngine(EngineKit):
    kind = SoundEngine


class TestDropsThreads(EngineKit):
    kind = DropsThreads


class TestTellsItsKey(EngineKit):
    kind = TellsItsKey


class TestPutsExtraFirst(EngineKit):
    kind = PutsExtraFirst


class TestSharesItsLists(EngineKit):
    kind = SharesItsLists


# Sources


class SourceKit(ModelSourceContract):
    """The contract on ``kind``, over files."""

    __test__ = False
    backends: Sequence[Backend] = ("asyncio",)
    kind: ClassVar[type[FileModelSource]]

    def __init_subclass__(cls) -> None:
        cls.__test__ = True

    @pytest.fixture
    def open_source(self) -> Opener:
        return opener(self.kind)

    @pytest.fixture
    def a_model(self, tmp_path: Path) -> KnownModel:
        path = write_model(tmp_path / "m.gguf")
        return KnownModel(reference=str(path), size_bytes=path.stat().st_size)

    @pytest.fixture
    def a_sharded_model(self, tmp_path: Path) -> KnownModel:
        paths = [
            write_model(tmp_path / f"s-0000{number}-of-00002.gguf", names=[f"blk.{number}.weight"])
            for number in (1, 2)
        ]
        size_bytes = sum(path.stat().st_size for path in paths)
        return KnownModel(reference=str(paths[0]), size_bytes=size_bytes, shards=2)

    @pytest.fixture
    def missing_reference(self, tmp_path: Path) -> str:
        return str(tmp_path / "gone.gguf")


class RaisesItsOwn(FileModelSource):
    """A missing file is whatever the system says."""

    async def locate(self, reference: str) -> LocatedModel:
        try:
            return await super().locate(reference)
        except ModelFileMissing as error:
            raise FileNotFoundError(error.path) from error


class CountsOneShard(FileModelSource):
    """The size is that of the first file."""

    async def locate(self, reference: str) -> LocatedModel:
        found = await super().locate(reference)
        return attrs.evolve(found, size_bytes=found.paths[0].stat().st_size)


class TestRaisesItsOwn(SourceKit):
    kind = RaisesItsOwn


class TestCountsOneShard(SourceKit):
    kind = CountsOneShard


# Clocks


class NeverPauses(SystemClock):
    """No time is no sleep."""

    async def sleep(self, seconds: float) -> None:
        if seconds:
            await super().sleep(seconds)


class StepsBack(SystemClock):
    """Every second look is a little earlier."""

    def __init__(self) -> None:
        self.looks = 0

    def monotonic(self) -> float:
        self.looks += 1
        return super().monotonic() - 0.0005 * (self.looks % 2)


class TestNeverPauses(ClockContract):
    @pytest.fixture
    def clock(self) -> Clock:
        return NeverPauses()


class TestStepsBack(ClockContract):
    backends: Sequence[Backend] = ("asyncio",)

    @pytest.fixture
    def clock(self) -> Clock:
        return StepsBack()


# Sinks


class FailsWithFailures(EventSink):
    """Raises what it is told of."""

    def emit(self, event: Event) -> None:
        if isinstance(event, ServerFailed):
            raise OSError(event.reason)


class WantsTheMainThread(EventSink):
    """Raises in any other."""

    def emit(self, event: Event) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("not here")


class WaitsForItsDisk(EventSink):
    """Holds up the loop for each event."""

    def emit(self, event: Event) -> None:
        time.sleep(0.002)


class TestFailsWithFailures(EventSinkContract):
    @pytest.fixture
    def sink(self) -> EventSink:
        return FailsWithFailures()


class TestWantsTheMainThread(EventSinkContract):
    @pytest.fixture
    def sink(self) -> EventSink:
        return WantsTheMainThread()


class TestWaitsForItsDisk(EventSinkContract):
    longest_emit_s = 0.001

    @pytest.fixture
    def sink(self) -> EventSink:
        return WaitsForItsDisk()


# Process tables


class LooksAtPidsOnly(PsutilProcessTable):
    """Takes a pid for a process."""

    def is_alive(self, node: str, pid: int, process_started_at: float) -> bool:
        try:
            process_started_at = psutil.Process(pid).create_time()
        except (psutil.Error, ValueError, OverflowError):
            return node != self.identity().node
        return super().is_alive(node, pid, process_started_at)


class TakesZombiesForAlive(PsutilProcessTable):
    """Takes an entry in the kernel's table for a process."""

    def is_alive(self, node: str, pid: int, process_started_at: float) -> bool:
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return abs(process.create_time() - process_started_at) < 2
        except (psutil.Error, ValueError, OverflowError):
            pass
        return super().is_alive(node, pid, process_started_at)


class AddsUpProcesses(PsutilProcessTable):
    """Takes every process's pages for its own."""

    def memory_bytes(self, pid: int) -> int | None:
        found = super().memory_bytes(pid)
        if found is None:
            return None
        process = psutil.Process(pid)
        return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))


class ForgetsChildren(PsutilProcessTable):
    """Looks at one process."""

    def memory_bytes(self, pid: int) -> int | None:
        found = super().memory_bytes(pid)
        return None if found is None else int(psutil.Process(pid).memory_info().rss)


class DividesSharedPages(PsutilProcessTable):
    """Takes a process's share of what others have mapped too."""

    def memory_bytes(self, pid: int) -> int | None:
        if super().memory_bytes(pid) is None:
            return None
        process = psutil.Process(pid)
        family = (process, *process.children(recursive=True))
        return sum(int(each.memory_full_info().pss) for each in family)


class TestAddsUpProcesses(ProcessTableContract):
    backends: Sequence[Backend] = ("asyncio",)

    @pytest.fixture
    def open_process_table(self) -> Opener:
        return opener(AddsUpProcesses)


class TestForgetsChildren(ProcessTableContract):
    backends: Sequence[Backend] = ("asyncio",)

    @pytest.fixture
    def open_process_table(self) -> Opener:
        return opener(ForgetsChildren)


class TestDividesSharedPages(ProcessTableContract):
    backends: Sequence[Backend] = ("asyncio",)

    @pytest.fixture
    def open_process_table(self) -> Opener:
        return opener(DividesSharedPages)


class TestLooksAtPidsOnly(ProcessTableContract):
    backends: Sequence[Backend] = ("asyncio",)

    @pytest.fixture
    def open_process_table(self) -> Opener:
        return opener(LooksAtPidsOnly)


class TestTakesZombiesForAlive(ProcessTableContract):
    backends: Sequence[Backend] = ("asyncio",)

    @pytest.fixture
    def open_process_table(self) -> Opener:
        return opener(TakesZombiesForAlive)


# Device inventories


class SoundInventory(DeviceInventory):
    """A machine with a GPU, on paper."""

    surveys = 0

    async def survey(self) -> DeviceSurvey:
        self.surveys += 1
        await anyio.lowlevel.checkpoint()
        return DeviceSurvey(devices=self.found())

    def found(self) -> list[Device]:
        return [self.device("cpu", "cpu"), self.device("cuda0", "cuda")]

    def device(self, name: str, kind: str, total_bytes: int = 8 * 2**30) -> Device:
        return Device(name=name, kind=kind, total_bytes=total_bytes, free_bytes=total_bytes // 2)


class TellsMebibytes(SoundInventory):
    """Counts what the driver counts."""

    def device(self, name: str, kind: str, total_bytes: int = 8 * 2**10) -> Device:
        return super().device(name, kind, total_bytes)


class PutsGpusFirst(SoundInventory):
    """The fastest memory first."""

    def found(self) -> list[Device]:
        return list(reversed(super().found()))


class CallsAllGpusAlike(SoundInventory):
    """Two of one kind have one name."""

    def found(self) -> list[Device]:
        return [*super().found(), self.device("cuda0", "cuda")]


class CountsSurveys(SoundInventory):
    """A number that moves."""

    def found(self) -> list[Device]:
        return [self.device("cpu", "cpu"), self.device(f"cuda{self.surveys}", "cuda")]


class WaitsForItsDriver(SoundInventory):
    """In the event loop."""

    def found(self) -> list[Device]:
        time.sleep(0.02)
        return super().found()


class BreaksWhenCancelled(SoundInventory):
    """What was cut off is never looked at again."""

    cut = False

    async def survey(self) -> DeviceSurvey:
        try:
            found = await super().survey()
        except BaseException:
            self.cut = True
            raise
        return DeviceSurvey(devices=found.devices[:1]) if self.cut else found


class InventoryKit(DeviceInventoryContract):
    """The contract on ``kind``."""

    __test__ = False
    backends: Sequence[Backend] = ("asyncio",)
    kind: ClassVar[type[SoundInventory]]

    def __init_subclass__(cls) -> None:
        cls.__test__ = True

    @pytest.fixture
    def open_inventory(self) -> Opener:
        return opener(self.kind)


class TestSoundInventory(InventoryKit):
    kind = SoundInventory


class TestTellsMebibytes(InventoryKit):
    kind = TellsMebibytes


class TestPutsGpusFirst(InventoryKit):
    kind = PutsGpusFirst


class TestCallsAllGpusAlike(InventoryKit):
    kind = CallsAllGpusAlike


class TestCountsSurveys(InventoryKit):
    kind = CountsSurveys


class TestWaitsForItsDriver(InventoryKit):
    longest_hold_s = 0.01
    kind = WaitsForItsDriver


class TestBreaksWhenCancelled(InventoryKit):
    kind = BreaksWhenCancelled


# Queues of pulls


class QueueKit(PullQueueContract):
    """The contract on ``kind``."""

    __test__ = False
    backends: Sequence[Backend] = ("asyncio",)
    shared_by_openings = False
    kind: ClassVar[type[MemoryPullQueue]]

    def __init_subclass__(cls) -> None:
        cls.__test__ = True

    @pytest.fixture
    def open_queue(self) -> Opener:
        return opener(self.kind)


class QueuesTwice(MemoryPullQueue):
    """Looks first and adds later: two who ask at once are both added."""

    async def add(self, pull: Pull) -> Pull:
        known = await self.list()
        same = [each for each in known if not each.state.ended and each.fetches_the_same_as(pull)]
        await anyio.lowlevel.checkpoint()
        if not same:
            self._pulls[pull.id] = pull
        return same[0] if same else pull


class ReadsThenWrites(MemoryPullQueue):
    """An edit in two steps loses what came in between."""

    async def edit(self, pull_id: str, change: Callable[[Pull], Pull]) -> Pull | None:
        before = await self.get(pull_id)
        if before is None:
            return None
        await anyio.lowlevel.checkpoint()
        after = self._pulls[pull_id] = change(before)
        return after


class FetchesForEver(MemoryPullQueue):
    """The right to fetch is kept when its block ends by an error."""

    @contextmanager
    def fetching(self) -> Iterator[bool]:
        held, self._held = not self._held, True
        yield held
        if held:
            self._held = False


class TestQueuesTwice(QueueKit):
    kind = QueuesTwice


class TestReadsThenWrites(QueueKit):
    kind = ReadsThenWrites


class TestFetchesForEver(QueueKit):
    kind = FetchesForEver
