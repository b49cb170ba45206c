"""Runners that break one promise each: test_broken_runners.py runs this file.

No test module by its name, so that nothing else does.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import anyio
import attrs
import psutil
import pytest
from conformance.mock_runners import OnPaper

from gglib.domain.config import SERVER_ID_VARIABLE, ServerConfig
from gglib.domain.device import Device
from gglib.domain.handle import ProcessHandle
from gglib.domain.health import ServerHealth
from gglib.domain.ids import new_server_id
from gglib.domain.server_memory import ServerMemory
from gglib.errors import NotRunning, PortInUse, StartFailed
from gglib.ports.context import AdapterContext, EngineSet
from gglib.ports.engine import Engine, EngineCapabilities, EngineProbe
from gglib.ports.process_runner import ProcessRunner
from gglib.testing import MockRunner, ProcessRunnerContract
from gglib.testing.contracts.process_runner import COMPLAINTS, OpenRunner
from gglib.testing.contracts.process_runner.ending import EndPromises
from gglib.testing.contracts.process_runner.health import HealthPromises
from gglib.testing.contracts.process_runner.identity import IdentityPromises
from gglib.testing.contracts.process_runner.kit import RunnerPromises
from gglib.testing.contracts.process_runner.kit_engine import KitEngine
from gglib.testing.contracts.process_runner.listing import ListingPromises
from gglib.testing.contracts.process_runner.output import OutputPromises
from gglib.testing.contracts.process_runner.starting import StartPromises
from gglib.testing.contracts.process_runner.stopping import StopPromises
from gglib_adapters.runners.local import open_local_runner
from gglib_adapters.runners.mock import open_mock_runner


class SoundRunner(ProcessRunner):
    """Hands everything on to a runner that keeps its promises. The others break one of them."""

    def __init__(self, inner: ProcessRunner) -> None:
        self.inner = inner

    async def start(self, config: ServerConfig) -> ProcessHandle:
        return await self.inner.start(config)

    async def stop(self, handle: ProcessHandle) -> None:
        await self.inner.stop(handle)

    async def is_running(self, handle: ProcessHandle) -> bool:
        return await self.inner.is_running(handle)

    async def health(self, handle: ProcessHandle) -> ServerHealth:
        return await self.inner.health(handle)

    async def list_running(self) -> list[ProcessHandle]:
        return await self.inner.list_running()

    async def devices(self) -> Sequence[Device] | None:
        return await self.inner.devices()

    async def machine_id(self) -> str | None:
        return await self.inner.machine_id()

    async def memory(self, handle: ProcessHandle) -> ServerMemory | None:
        return await self.inner.memory(handle)

    async def has_file(self, path: Path) -> bool:
        return await self.inner.has_file(path)

    async def port_is_taken(self, handle: ProcessHandle) -> bool:
        return await self.inner.port_is_taken(handle)

    async def adopt(self, handle: ProcessHandle) -> None:
        await self.inner.adopt(handle)

    async def logs(
        self, handle: ProcessHandle, *, tail: int = 20, follow: bool = False
    ) -> AsyncIterator[str]:
        async for line in self.inner.logs(handle, tail=tail, follow=follow):
            yield line

    async def past_servers(self, model_name: str) -> list[ProcessHandle]:
        return await self.inner.past_servers(model_name)

    async def wait(self, handle: ProcessHandle) -> int | None:
        return await self.inner.wait(handle)

    async def double_of(self, handle: ProcessHandle) -> ProcessHandle | None:
        """Return the running server with the same pid, whoever it is."""
        for running in await self.inner.list_running():
            if running.pid == handle.pid:
                return running
        return None


def around(open_inner: OpenRunner, kind: Callable[[ProcessRunner], ProcessRunner]) -> OpenRunner:
    """Return a factory of ``kind`` around the runner that ``open_inner`` opens."""

    @asynccontextmanager
    async def opened(context: AdapterContext) -> AsyncIterator[ProcessRunner]:
        async with open_inner(context) as inner:
            yield kind(inner)

    return opened


class AroundMock(OnPaper):
    """A runner of ``kind`` around the mock."""

    kind: ClassVar[type[SoundRunner]] = SoundRunner
    backends = ("asyncio",)
    patience_s = 1.0

    @pytest.fixture
    def open_runner(self) -> OpenRunner:
        return around(open_mock_runner, self.kind)

    def mock_of(self, runner: ProcessRunner) -> MockRunner:
        assert isinstance(runner, SoundRunner)
        assert isinstance(runner.inner, MockRunner)
        return runner.inner


class AroundLocal(RunnerPromises):
    """A runner of ``kind`` around the local one, whose servers are processes."""

    kind: ClassVar[type[SoundRunner]] = SoundRunner
    settings: ClassVar[Any] = {"stop_grace_s": 0.2}
    backends = ("asyncio",)
    patience_s = 3.0

    @pytest.fixture
    def open_runner(self) -> OpenRunner:
        return around(open_local_runner, self.kind)


class TestSoundRunner(AroundMock, ProcessRunnerContract):
    """So that what fails below fails for the promise that was broken."""


# Starting


class ForgetsItsName(SoundRunner):
    async def start(self, config: ServerConfig) -> ProcessHandle:
        return attrs.evolve(await self.inner.start(config), runner="local")


class TestForgetsItsName(AroundMock, ProcessRunnerContract):
    kind = ForgetsItsName


class InventsIdentities(SoundRunner):
    async def start(self, config: ServerConfig) -> ProcessHandle:
        environment = {**config.environment, SERVER_ID_VARIABLE: new_server_id()}
        return await self.inner.start(attrs.evolve(config, environment=environment))


class TestInventsIdentities(AroundMock, ProcessRunnerContract):
    kind = InventsIdentities


class TakesAnyPort(SoundRunner):
    async def start(self, config: ServerConfig) -> ProcessHandle:
        return await self.inner.start(attrs.evolve(config, port=None))


class TestTakesAnyPort(AroundMock, ProcessRunnerContract):
    kind = TakesAnyPort


class IgnoresBasePort(SoundRunner):
    async def start(self, config: ServerConfig) -> ProcessHandle:
        if config.base_port:
            config = attrs.evolve(config, base_port=50_000)
        return await self.inner.start(config)


class TestIgnoresBasePort(AroundMock, ProcessRunnerContract):
    kind = IgnoresBasePort


class HidesWhosePortItIs(SoundRunner):
    async def start(self, config: ServerConfig) -> ProcessHandle:
        try:
            return await self.inner.start(config)
        except PortInUse as error:
            raise StartFailed(config.model_name, None, (), str(error)) from error


class TestHidesWhosePortItIs(AroundMock, ProcessRunnerContract):
    kind = HidesWhosePortItIs


class WaitsUntilReady(SoundRunner):
    async def start(self, config: ServerConfig) -> ProcessHandle:
        handle = await self.inner.start(config)
        with suppress(NotRunning):
            while not (await self.inner.health(handle)).healthy:
                await anyio.sleep(0.01)
        return handle


class TestWaitsUntilReady(AroundMock, StartPromises):
    kind = WaitsUntilReady


class LeaksCancelledStarts(SoundRunner):
    async def start(self, config: ServerConfig) -> ProcessHandle:
        handle = await self.inner.start(config)
        await anyio.sleep(0)
        return handle


class TestLeaksCancelledStarts(AroundMock, ProcessRunnerContract):
    kind = LeaksCancelledStarts


class RecordsTooLate(SoundRunner):
    """Knows of a server some time after its process has begun."""

    def __init__(self, inner: ProcessRunner) -> None:
        super().__init__(inner)
        self.recorded: list[ProcessHandle] = []

    async def start(self, config: ServerConfig) -> ProcessHandle:
        await anyio.sleep(0.05)
        handle = await self.inner.start(config)
        await anyio.sleep(0.05)
        self.recorded.append(handle)
        return handle

    async def list_running(self) -> list[ProcessHandle]:
        return [handle for handle in await self.inner.list_running() if handle in self.recorded]


class TestRecordsTooLate(AroundLocal, StartPromises):
    kind = RecordsTooLate


class RaisesWhateverItMet(SoundRunner):
    async def start(self, config: ServerConfig) -> ProcessHandle:
        try:
            return await self.inner.start(config)
        except StartFailed as error:
            raise FileNotFoundError(2, "No such file or directory") from error


class TestRaisesWhateverItMet(AroundMock, ProcessRunnerContract):
    kind = RaisesWhateverItMet


class DropsTheEnvironment(SoundRunner):
    async def start(self, config: ServerConfig) -> ProcessHandle:
        kept = {SERVER_ID_VARIABLE: config.server_id} if config.server_id else {}
        return await self.inner.start(attrs.evolve(config, environment=kept))


class TestDropsTheEnvironment(AroundLocal, StartPromises):
    kind = DropsTheEnvironment


class Overlooks(Engine):
    """The engine as a runner sees it that does not look at all of it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def name(self) -> str:
        return self.engine.name

    @property
    def capabilities(self) -> EngineCapabilities:
        return self.engine.capabilities

    async def probe(self) -> EngineProbe:
        return await self.engine.probe()

    def command(self, config: ServerConfig, port: int) -> list[str]:
        return self.engine.command(config, port)

    def environment(self, config: ServerConfig) -> Mapping[str, str]:
        return self.engine.environment(config)

    @property
    def health_path(self) -> str:
        return self.engine.health_path

    @property
    def health_statuses(self) -> frozenset[int]:
        return self.engine.health_statuses

    @property
    def working_directory(self) -> Path | None:
        return self.engine.working_directory


class AroundLocalThatOverlooks(RunnerPromises):
    """The local runner, with an engine of ``kind`` in place of the kit's."""

    kind: ClassVar[type[Overlooks]] = Overlooks
    settings: ClassVar[Any] = {"stop_grace_s": 0.2}
    backends = ("asyncio",)
    patience_s = 1.5

    @pytest.fixture
    def open_runner(self) -> OpenRunner:
        def opened(context: AdapterContext) -> AbstractAsyncContextManager[ProcessRunner]:
            engines = EngineSet({"stub": self.kind(context.engines["stub"])})
            return open_local_runner(attrs.evolve(context, engines=engines))

        return opened


class OverlooksHealthPath(Overlooks):
    health_path = Engine.health_path


class TestOverlooksHealthPath(AroundLocalThatOverlooks, HealthPromises):
    kind = OverlooksHealthPath


class OverlooksHealthStatuses(Overlooks):
    health_statuses = Engine.health_statuses


class TestOverlooksHealthStatuses(AroundLocalThatOverlooks, HealthPromises):
    kind = OverlooksHealthStatuses


class OverlooksEnvironment(Overlooks):
    environment = Engine.environment


class TestOverlooksEnvironment(AroundLocalThatOverlooks, StartPromises):
    kind = OverlooksEnvironment


class OverlooksWorkingDirectory(Overlooks):
    working_directory = Engine.working_directory


class TestOverlooksWorkingDirectory(AroundLocalThatOverlooks, StartPromises):
    kind = OverlooksWorkingDirectory


class PrefersTheEngine(SoundRunner):
    async def start(self, config: ServerConfig) -> ProcessHandle:
        environment = {**config.environment, **KitEngine.variables}
        if "COLOUR" not in config.environment:
            environment = dict(config.environment)
        return await self.inner.start(attrs.evolve(config, environment=environment))


class TestPrefersTheEngine(AroundLocal, StartPromises):
    kind = PrefersTheEngine


# Stopping


class StopsTwice(SoundRunner):
    def __init__(self, inner: ProcessRunner) -> None:
        super().__init__(inner)
        self.stopped: set[ProcessHandle] = set()

    async def stop(self, handle: ProcessHandle) -> None:
        try:
            await self.inner.stop(handle)
        except NotRunning:
            if handle not in self.stopped:
                raise
        self.stopped.add(handle)


class TestStopsTwice(AroundMock, ProcessRunnerContract):
    kind = StopsTwice


class FailsTheSecondWhoStops(SoundRunner):
    def __init__(self, inner: ProcessRunner) -> None:
        super().__init__(inner)
        self.stopping: set[ProcessHandle] = set()

    async def stop(self, handle: ProcessHandle) -> None:
        if handle in self.stopping:
            raise NotRunning(handle.model_name)
        self.stopping.add(handle)
        try:
            await self.inner.stop(handle)
            await anyio.sleep(0)
        finally:
            self.stopping.discard(handle)


class TestFailsTheSecondWhoStops(AroundMock, ProcessRunnerContract):
    kind = FailsTheSecondWhoStops


class StopsTheWholeModel(SoundRunner):
    async def stop(self, handle: ProcessHandle) -> None:
        await self.inner.stop(handle)
        for other in await self.inner.list_running():
            if other.model_name == handle.model_name:
                await self.inner.stop(other)


class TestStopsTheWholeModel(AroundMock, ProcessRunnerContract):
    kind = StopsTheWholeModel


class EndsItsOwnWay(SoundRunner):
    """Those below differ in how they end a leader."""

    def __init__(self, inner: ProcessRunner) -> None:
        super().__init__(inner)
        self.stopping: list[ProcessHandle] = []

    async def stop(self, handle: ProcessHandle) -> None:
        if handle not in self.stopping and not await self.inner.is_running(handle):
            raise NotRunning(handle.model_name)
        self.stopping.append(handle)
        try:
            with suppress(ProcessLookupError):
                await self.end(handle)
        finally:
            self.stopping.remove(handle)

    async def end(self, handle: ProcessHandle) -> None:
        raise NotImplementedError


class OnlyAsks(EndsItsOwnWay):
    async def end(self, handle: ProcessHandle) -> None:
        os.kill(handle.pid or 0, signal.SIGTERM)
        with anyio.move_on_after(0.5):
            await self.inner.wait(handle)
            with suppress(NotRunning):
                await self.inner.stop(handle)  # waits for what the leader has left


class TestOnlyAsks(AroundLocal, StopPromises):
    kind = OnlyAsks


class KillsAtOnce(EndsItsOwnWay):
    async def end(self, handle: ProcessHandle) -> None:
        os.kill(handle.pid or 0, signal.SIGKILL)
        with suppress(NotRunning):
            await self.inner.stop(handle)


class TestKillsAtOnce(AroundLocal, StopPromises):
    kind = KillsAtOnce


class TestKillsAtOnceUnseen(AroundLocal, StopPromises):
    """Nobody learns of what it died; its output tells."""

    kind = KillsAtOnce
    knows_exit_status = False


class MissesOneInTwelve(SoundRunner):
    """Now and then forgets a server that it should have ended."""

    def __init__(self, inner: ProcessRunner) -> None:
        super().__init__(inner)
        self.stops = 0
        self.missed: list[ProcessHandle] = []

    async def stop(self, handle: ProcessHandle) -> None:
        self.stops += 1
        if self.stops % 12 == 0:
            self.missed.append(handle)
        else:
            await self.inner.stop(handle)

    async def is_running(self, handle: ProcessHandle) -> bool:
        return handle not in self.missed and await self.inner.is_running(handle)

    async def list_running(self) -> list[ProcessHandle]:
        return [handle for handle in await self.inner.list_running() if handle not in self.missed]


class TestMissesOneInTwelve(AroundLocal, StopPromises):
    kind = MissesOneInTwelve


class KnowsWhatItStops(SoundRunner):
    """Those below treat a server differently while it is being stopped."""

    def __init__(self, inner: ProcessRunner) -> None:
        super().__init__(inner)
        self.stopping: list[ProcessHandle] = []

    async def stop(self, handle: ProcessHandle) -> None:
        self.stopping.append(handle)
        try:
            await self.inner.stop(handle)
        finally:
            self.stopping.remove(handle)


class LeavesTheSecondWhoStops(KnowsWhatItStops):
    async def stop(self, handle: ProcessHandle) -> None:
        if handle not in self.stopping:
            await super().stop(handle)


class TestLeavesTheSecondWhoStops(AroundMock, StopPromises):
    kind = LeavesTheSecondWhoStops


class HidesWhatItStops(KnowsWhatItStops):
    async def list_running(self) -> list[ProcessHandle]:
        return [handle for handle in await self.inner.list_running() if handle not in self.stopping]


class TestHidesWhatItStops(AroundMock, StopPromises):
    kind = HidesWhatItStops


class RaisesWhileStopping(KnowsWhatItStops):
    async def health(self, handle: ProcessHandle) -> ServerHealth:
        if handle in self.stopping:
            raise RuntimeError("it is being stopped")
        return await self.inner.health(handle)


class TestRaisesWhileStopping(AroundMock, StopPromises):
    kind = RaisesWhileStopping


class DisownsWhatItStops(KnowsWhatItStops):
    async def is_running(self, handle: ProcessHandle) -> bool:
        return handle not in self.stopping and await self.inner.is_running(handle)


class TestDisownsWhatItStops(AroundLocal, StopPromises):
    kind = DisownsWhatItStops


def without_families() -> OpenRunner:
    """Return the nice runner's factory, with one that ends leaders alone."""
    import gglib_nice_runner as nice

    class ForgetsFamilies(nice.NiceRunner):  # type: ignore[misc]
        def family(self, handle: ProcessHandle) -> list[psutil.Process]:
            return [psutil.Process(handle.pid)] if psutil.pid_exists(handle.pid or 0) else []

    @asynccontextmanager
    async def opened(context: AdapterContext) -> AsyncIterator[ProcessRunner]:
        async with nice.open_nice_runner(context) as runner:
            yield ForgetsFamilies(context, runner.probe, **context.settings)

    return opened


class TestForgetsFamilies(AroundLocal, StopPromises):
    knows_exit_status = False

    @pytest.fixture
    def open_runner(self) -> OpenRunner:
        return without_families()


# Identity


class TrustsThePid(SoundRunner):
    async def is_running(self, handle: ProcessHandle) -> bool:
        return await self.double_of(handle) is not None


class TestTrustsThePid(AroundMock, ProcessRunnerContract):
    kind = TrustsThePid


class StopsByPid(SoundRunner):
    async def stop(self, handle: ProcessHandle) -> None:
        await self.inner.stop(await self.double_of(handle) or handle)


class TestStopsByPid(AroundMock, ProcessRunnerContract):
    kind = StopsByPid


class AsksByPid(SoundRunner):
    async def health(self, handle: ProcessHandle) -> ServerHealth:
        return await self.inner.health(await self.double_of(handle) or handle)


class TestAsksByPid(AroundMock, ProcessRunnerContract):
    kind = AsksByPid


class WaitsByPid(SoundRunner):
    async def wait(self, handle: ProcessHandle) -> int | None:
        return await self.inner.wait(await self.double_of(handle) or handle)


class TestWaitsByPid(AroundMock, ProcessRunnerContract):
    kind = WaitsByPid


class ReadsByPid(SoundRunner):
    async def logs(
        self, handle: ProcessHandle, *, tail: int = 20, follow: bool = False
    ) -> AsyncIterator[str]:
        handle = await self.double_of(handle) or handle
        async for line in self.inner.logs(handle, tail=tail):
            yield line


class TestReadsByPid(AroundMock, IdentityPromises):
    kind = ReadsByPid


class RaisesWithoutOutput(SoundRunner):
    async def logs(
        self, handle: ProcessHandle, *, tail: int = 20, follow: bool = False
    ) -> AsyncIterator[str]:
        if handle.pid is None:
            raise FileNotFoundError(2, "No such file or directory")
        async for line in self.inner.logs(handle, tail=tail, follow=follow):
            yield line


class TestRaisesWithoutOutput(AroundMock, IdentityPromises):
    kind = RaisesWithoutOutput


# Health


class HealthyTooSoon(SoundRunner):
    async def health(self, handle: ProcessHandle) -> ServerHealth:
        return attrs.evolve(await self.inner.health(handle), healthy=True, last_check=1.7e9)


class TestHealthyTooSoon(AroundMock, ProcessRunnerContract):
    kind = HealthyTooSoon


class RaisesWhileLoading(SoundRunner):
    async def health(self, handle: ProcessHandle) -> ServerHealth:
        health = await self.inner.health(handle)
        if not health.healthy:
            raise ConnectionRefusedError(111, "Connection refused")
        return health


class TestRaisesWhileLoading(AroundMock, ProcessRunnerContract):
    kind = RaisesWhileLoading


class NeverTellsWhen(SoundRunner):
    async def health(self, handle: ProcessHandle) -> ServerHealth:
        return attrs.evolve(await self.inner.health(handle), last_check=None)


class TestNeverTellsWhen(AroundMock, ProcessRunnerContract):
    kind = NeverTellsWhen


class UnhealthyAfterItsEnd(SoundRunner):
    async def health(self, handle: ProcessHandle) -> ServerHealth:
        try:
            return await self.inner.health(handle)
        except NotRunning as error:
            return ServerHealth.unhealthy(str(error))


class TestUnhealthyAfterItsEnd(AroundMock, ProcessRunnerContract):
    kind = UnhealthyAfterItsEnd


class BlamesThePort(SoundRunner):
    async def port_is_taken(self, handle: ProcessHandle) -> bool:
        return True


class TestBlamesThePort(AroundMock, ProcessRunnerContract):
    kind = BlamesThePort


class TrustsWhoeverAnswers(SoundRunner):
    async def health(self, handle: ProcessHandle) -> ServerHealth:
        health = await self.inner.health(handle)
        return ServerHealth.ok(last_check=1.7e9) if health.port_held_by else health


class TestTrustsWhoeverAnswers(AroundLocal, HealthPromises):
    kind = TrustsWhoeverAnswers


# Listing


class ListsTheDead(SoundRunner):
    """Forgets a server at its stop only."""

    def __init__(self, inner: ProcessRunner) -> None:
        super().__init__(inner)
        self.died: list[ProcessHandle] = []

    async def is_running(self, handle: ProcessHandle) -> bool:
        running = await self.inner.is_running(handle)
        if not running and await self.inner.wait(handle) == 3:
            self.died.append(handle)
        return running

    async def list_running(self) -> list[ProcessHandle]:
        return [*self.died, *await self.inner.list_running()]


class TestListsTheDead(AroundMock, ProcessRunnerContract):
    kind = ListsTheDead


class ListsNewestFirst(SoundRunner):
    async def list_running(self) -> list[ProcessHandle]:
        return list(reversed(await self.inner.list_running()))


class TestListsNewestFirst(AroundMock, ProcessRunnerContract):
    kind = ListsNewestFirst


class TestListsEverybodys(AroundMock, ProcessRunnerContract):
    """One world for all data directories and names."""

    @pytest.fixture
    def open_runner(self, tmp_path: Path) -> OpenRunner:
        def opened(context: AdapterContext) -> AbstractAsyncContextManager[ProcessRunner]:
            return around(open_mock_runner, SoundRunner)(
                attrs.evolve(context, data_dir=tmp_path, name="contract")
            )

        return opened


class TestForgetsWhatItLeft(AroundMock, ProcessRunnerContract):
    """A new world at every opening."""

    @pytest.fixture
    def open_runner(self, tmp_path_factory: pytest.TempPathFactory) -> OpenRunner:
        def opened(context: AdapterContext) -> AbstractAsyncContextManager[ProcessRunner]:
            elsewhere = tmp_path_factory.mktemp("world")
            return around(open_mock_runner, SoundRunner)(attrs.evolve(context, data_dir=elsewhere))

        return opened


class AdoptsAnything(SoundRunner):
    async def adopt(self, handle: ProcessHandle) -> None:
        del handle


class TestAdoptsAnything(AroundMock, ProcessRunnerContract):
    kind = AdoptsAnything


class FindsEveryFile(SoundRunner):
    async def has_file(self, path: Path) -> bool:
        del path
        return True


class TestFindsEveryFile(AroundLocal, ListingPromises):
    kind = FindsEveryFile


class TellsOneDeviceTwice(SoundRunner):
    async def devices(self) -> Sequence[Device] | None:
        return [Device(name="cpu", kind="cpu", total_bytes=2, free_bytes=1)] * 2


class TestTellsOneDeviceTwice(AroundMock, ListingPromises):
    kind = TellsOneDeviceTwice


class TellsDevicesNowAndThen(SoundRunner):
    told = False

    async def devices(self) -> Sequence[Device] | None:
        self.told = not self.told
        return [Device(name="cpu", kind="cpu", total_bytes=2, free_bytes=1)] if self.told else None


class TestTellsDevicesNowAndThen(AroundMock, ListingPromises):
    kind = TellsDevicesNowAndThen


class NamesItsMachineAnew(SoundRunner):
    async def machine_id(self) -> str | None:
        return new_server_id()


class TestNamesItsMachineAnew(AroundMock, ListingPromises):
    kind = NamesItsMachineAnew


class RemembersMemory(SoundRunner):
    async def memory(self, handle: ProcessHandle) -> ServerMemory | None:
        return ServerMemory(resident_bytes=2, own_bytes=1)


class TestRemembersMemory(AroundMock, ListingPromises):
    kind = RemembersMemory


class SeesMemoryThatIsNotThere(SoundRunner):
    async def memory(self, handle: ProcessHandle) -> ServerMemory | None:
        if not await self.inner.is_running(handle):
            return None
        return ServerMemory(resident_bytes=2, own_bytes=1, accelerators={"cuda9": 1})


class TestSeesMemoryThatIsNotThere(AroundMock, ListingPromises):
    kind = SeesMemoryThatIsNotThere


# Ending


class NeverStopsWaiting(SoundRunner):
    async def wait(self, handle: ProcessHandle) -> int | None:
        del handle
        await anyio.sleep_forever()
        return None


class TestNeverStopsWaiting(AroundMock, EndPromises):
    kind = NeverStopsWaiting


class NeverWaits(SoundRunner):
    async def wait(self, handle: ProcessHandle) -> int | None:
        if await self.inner.is_running(handle):
            return None
        return await self.inner.wait(handle)


class TestNeverWaits(AroundMock, ProcessRunnerContract):
    kind = NeverWaits


class CallsEveryEndClean(SoundRunner):
    async def wait(self, handle: ProcessHandle) -> int | None:
        return await self.inner.wait(handle) and 0


class TestCallsEveryEndClean(AroundMock, ProcessRunnerContract):
    kind = CallsEveryEndClean


class StopsWhenItsWaiterLeaves(SoundRunner):
    async def wait(self, handle: ProcessHandle) -> int | None:
        try:
            return await self.inner.wait(handle)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.inner.stop(handle)
            raise


class TestStopsWhenItsWaiterLeaves(AroundMock, ProcessRunnerContract):
    kind = StopsWhenItsWaiterLeaves


class MissesDeaths(SoundRunner):
    """Learns of an end only by its own stop."""

    def __init__(self, inner: ProcessRunner) -> None:
        super().__init__(inner)
        self.stopped: set[ProcessHandle] = set()

    async def stop(self, handle: ProcessHandle) -> None:
        await self.inner.stop(handle)
        self.stopped.add(handle)

    async def wait(self, handle: ProcessHandle) -> int | None:
        status = await self.inner.wait(handle)
        while handle not in self.stopped and status == -signal.SIGKILL:
            await anyio.sleep(0.01)
        return status


class TestMissesDeaths(AroundLocal, EndPromises):
    kind = MissesDeaths


# Output


class LosesLastWords(SoundRunner):
    async def logs(
        self, handle: ProcessHandle, *, tail: int = 20, follow: bool = False
    ) -> AsyncIterator[str]:
        if await self.inner.is_running(handle):
            async for line in self.inner.logs(handle, tail=tail, follow=follow):
                yield line


class TestLosesLastWords(AroundMock, ProcessRunnerContract):
    kind = LosesLastWords


class TailsFromTheTop(SoundRunner):
    async def logs(
        self, handle: ProcessHandle, *, tail: int = 20, follow: bool = False
    ) -> AsyncIterator[str]:
        lines = [line async for line in self.inner.logs(handle, tail=10**6)]
        for line in lines[:tail]:
            yield line


class TestTailsFromTheTop(AroundMock, ProcessRunnerContract):
    kind = TailsFromTheTop


class TailsNothingAsAll(SoundRunner):
    async def logs(
        self, handle: ProcessHandle, *, tail: int = 20, follow: bool = False
    ) -> AsyncIterator[str]:
        async for line in self.inner.logs(handle, tail=tail or 10**6, follow=follow):
            yield line


class TestTailsNothingAsAll(AroundMock, OutputPromises):
    kind = TailsNothingAsAll


class LosesComplaints(SoundRunner):
    async def logs(
        self, handle: ProcessHandle, *, tail: int = 20, follow: bool = False
    ) -> AsyncIterator[str]:
        async for line in self.inner.logs(handle, tail=tail, follow=follow):
            if line not in COMPLAINTS:
                yield line


class TestLosesComplaints(AroundMock, OutputPromises):
    kind = LosesComplaints


class NeverFollows(SoundRunner):
    async def logs(
        self, handle: ProcessHandle, *, tail: int = 20, follow: bool = False
    ) -> AsyncIterator[str]:
        async for line in self.inner.logs(handle, tail=tail):
            yield line


class TestNeverFollows(AroundMock, OutputPromises):
    kind = NeverFollows


class FollowsUntilSilence(SoundRunner):
    async def logs(
        self, handle: ProcessHandle, *, tail: int = 20, follow: bool = False
    ) -> AsyncIterator[str]:
        lines = aiter(self.inner.logs(handle, tail=tail, follow=follow))
        while True:
            line = None
            with anyio.move_on_after(0.05):
                line = await anext(lines, None)
            if line is None:
                return
            yield line


class TestFollowsUntilSilence(AroundMock, OutputPromises):
    kind = FollowsUntilSilence


class MixesOutputs(SoundRunner):
    async def logs(
        self, handle: ProcessHandle, *, tail: int = 20, follow: bool = False
    ) -> AsyncIterator[str]:
        async for line in self.inner.logs(handle, tail=tail, follow=follow):
            yield line
        for other in await self.inner.list_running():
            if other != handle and other.model_name == handle.model_name:
                async for line in self.inner.logs(other, tail=tail):
                    yield line


class TestMixesOutputs(AroundMock, ProcessRunnerContract):
    kind = MixesOutputs


class FollowsForEver(SoundRunner):
    async def logs(
        self, handle: ProcessHandle, *, tail: int = 20, follow: bool = False
    ) -> AsyncIterator[str]:
        async for line in self.inner.logs(handle, tail=tail, follow=follow):
            yield line
        if follow:
            await anyio.sleep_forever()


class TestFollowsForEver(AroundMock, OutputPromises):
    kind = FollowsForEver


class RemembersOldestFirst(SoundRunner):
    async def past_servers(self, model_name: str) -> list[ProcessHandle]:
        return list(reversed(await self.inner.past_servers(model_name)))


class TestRemembersOldestFirst(AroundMock, ProcessRunnerContract):
    kind = RemembersOldestFirst
