"""What ``start`` promises."""

from __future__ import annotations

import time

import anyio
import anyio.lowlevel
import attrs
import psutil
import pytest

from gglib.domain.config import SERVER_ID_VARIABLE, ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.domain.ids import check_server_id, new_server_id
from gglib.domain.server_address import ServerAddress
from gglib.errors import EngineNotFound, PortInUse, StartFailed
from gglib.testing.contracts.process_runner.behaviour import Behaviour
from gglib.testing.contracts.process_runner.kit import RunnerKit, RunnerPromises
from gglib.testing.contracts.process_runner.outside import lives, port_answers, stranger_on
from gglib.testing.contracts.process_runner.patient import PatientRunner

__all__ = ["StartPromises"]

_START_TIME_TOLERANCE_S = 0.1


@attrs.frozen
class _Moment:
    """A part of a start: on paper it takes some turns of the event loop, else real time."""

    turns: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.seconds * 1000:.1f} ms" if self.seconds else f"{self.turns} turns"

    async def passes(self) -> None:
        if self.seconds:
            await anyio.sleep(self.seconds)
        for _ in range(self.turns):
            await anyio.lowlevel.checkpoint()


class StartPromises(RunnerPromises):
    """``start`` makes one server, with the identity and on the port that were asked for."""

    async def test_started_server_is_who_its_configuration_says(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """The handle names the model, the server's id, its runner, and where to connect."""
        before = kit.clock.now()
        handle = await kit.start(runner, name="qwen")
        told = (handle.model_id, handle.model_name, handle.server_id, handle.runner)
        assert told == (1, "qwen", kit.server_ids[0], "contract"), (
            "a handle carries the model, the server's id, and the name its runner is configured as"
        )
        assert before <= handle.started_at <= kit.clock.now(), "started_at is the clock's time"
        assert handle.node, "a handle names its node"
        ServerAddress.parse(handle.base_url)
        assert not handle.base_url.endswith("/"), "base_url ends without a slash"
        assert await runner.is_running(handle), "a started server is running"

    async def test_started_process_is_the_one_in_the_handle(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """Its pid lives, and its start time is the kernel's."""
        self.needs("has_processes")
        handle = await kit.start(runner)
        assert lives(handle.pid), "the pid of a handle is that of a live process"
        created = psutil.Process(handle.pid).create_time()
        assert handle.process_started_at is not None, "the process's start time is its identity"
        assert abs(handle.process_started_at - created) < _START_TIME_TOLERANCE_S, (
            "process_started_at is the kernel's start time, in Unix seconds"
        )

    async def test_server_without_an_identity_gets_a_new_one(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """Two of them differ, and are ULIDs."""
        config = ServerConfig(
            model_id=1, model_name="alpha", model_path=kit.data_dir / "a.gguf", engine="stub"
        )
        handles = []
        for _ in range(2):
            self.prepare(kit, runner.inner, config, Behaviour.READY)
            handles.append(await runner.start(config))
        kit.server_ids += [handle.server_id for handle in handles]
        assert handles[0].server_id != handles[1].server_id, "every server has an id of its own"
        for handle in handles:
            check_server_id(handle.server_id)

    async def test_start_returns_before_the_server_is_ready(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """Waiting for it is somebody else's work."""
        with kit.patience("start returns as soon as the process exists"):
            handle = await kit.start(runner, Behaviour.LOADS)
        assert await runner.is_running(handle), "a loading server is running"

    async def test_server_carries_its_environment(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """What the configuration says, and the identity by which a crash's orphans are found."""
        self.needs("has_processes")
        handle = await kit.start(runner, environment={"COLOUR": "green = blue"})
        await kit.until_healthy(runner, handle)
        carried = psutil.Process(handle.pid).environ()
        assert carried.get("COLOUR") == "green = blue", "config.environment reaches the server"
        assert carried.get(SERVER_ID_VARIABLE) == handle.server_id, (
            f"the server carries its id as {SERVER_ID_VARIABLE}"
        )

    async def test_server_runs_as_its_engine_says(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """In the engine's working directory, with its variables, of which the user's win."""
        self.needs("has_processes")
        handle = await kit.start(runner, environment={"COLOUR": "the user's"})
        await kit.until_healthy(runner, handle)
        process = psutil.Process(handle.pid)
        carried = process.environ()
        assert carried.get("KIT_ENGINE") == kit.engine.variables["KIT_ENGINE"], (
            "the engine's environment reaches the server"
        )
        assert carried.get("COLOUR") == "the user's", "config.environment wins over the engine's"
        place = str(kit.engine.working_directory)
        assert process.cwd() == place, "a server runs in its engine's working_directory"

    async def test_port_that_is_asked_for_is_used(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """It is the handle's, and free again after the stop."""
        first = await kit.start(runner)
        await runner.stop(first)
        for _ in range(2):
            handle = await kit.start(runner, port=first.port)
            assert handle.port == first.port, "config.port is the port"
            await kit.until_healthy(runner, handle)
            if self.has_ports:
                assert port_answers(handle.port), "the server listens on its port"
            await runner.stop(handle)

    async def test_port_of_another_server_is_refused(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """PortInUse says which, and nothing is started; also while the other does not listen."""
        handle = await kit.start(runner, Behaviour.SILENT)
        with pytest.raises(PortInUse) as caught:
            await kit.start(runner, name="beta", port=handle.port)
        assert caught.value.port == handle.port, "PortInUse carries the port"
        assert await runner.list_running() == [handle], "a refused start leaves nothing"

    async def test_port_of_a_stranger_is_refused(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """Whoever listens there was first."""
        self.needs("has_ports")
        with stranger_on() as port, pytest.raises(PortInUse) as caught:
            await kit.start(runner, port=port)
        assert caught.value.port == port, "PortInUse carries the port"
        assert await runner.list_running() == [], "a refused start leaves nothing"

    async def test_base_port_gives_a_free_port_from_there_on(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """Ports that are taken are passed over."""
        first = await kit.start(runner)
        second = await kit.start(runner, name="beta", base_port=first.port)
        assert first.port < second.port <= first.port + 100, (
            "the search begins at config.base_port and takes the next free one"
        )

    async def test_start_that_cannot_be_carried_out_fails(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """StartFailed, and nothing is left of it."""
        with pytest.raises(StartFailed) as caught:
            await kit.start(runner, Behaviour.IMPOSSIBLE)
        assert caught.value.model == "alpha", "StartFailed names the model"
        assert await runner.list_running() == [], "a failed start leaves nothing"

    async def test_unknown_engine_fails_the_start(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """EngineNotFound comes through as it is."""
        self.needs("has_processes")
        config = ServerConfig(
            model_id=1, model_name="alpha", model_path=kit.data_dir / "a.gguf", engine="warp"
        )
        with pytest.raises(EngineNotFound):
            await runner.start(config)
        assert await runner.list_running() == [], "a failed start leaves nothing"

    async def test_cancelled_start_leaves_nothing(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """Whatever moment the cancellation chooses."""
        for moment in await self._moments_of_a_start(kit, runner):
            started: list[ProcessHandle] = []

            async def start(started: list[ProcessHandle] = started) -> None:
                started.append(await kit.start(runner))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(start)
                await moment.passes()
                tasks.cancel_scope.cancel()
            left = [handle for handle in await runner.list_running() if handle not in started]
            assert left == [], f"a start that is cancelled after {moment} leaves nothing"
            for handle in started:
                await runner.stop(handle)
        if self.has_processes:
            assert kit.processes() == [], "a cancelled start leaves no process"

    async def _moments_of_a_start(self, kit: RunnerKit, runner: PatientRunner) -> list[_Moment]:
        if not self.has_processes:
            return [_Moment(turns=turns) for turns in range(64)]
        taken_s = 0.0
        # The first start may take longer than the others.
        for _ in range(2):
            began = time.perf_counter()
            handle = await kit.start(runner)
            taken_s = time.perf_counter() - began
            await runner.stop(handle)
        return [_Moment(seconds=taken_s * part / 12) for part in range(14)]

    async def test_ten_servers_start_and_stop_at_once(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """Their ports differ, all are listed, and none disturbs another."""
        handles: list[ProcessHandle] = []

        async def start(number: int) -> None:
            handle = await kit.start(runner, name=f"model-{number}")
            handles.append(handle)
            await kit.until_healthy(runner, handle)

        async with anyio.create_task_group() as starts:
            for number in range(10):
                starts.start_soon(start, number)
        assert len({handle.port for handle in handles}) == 10, "no two servers share a port"
        assert {handle.server_id for handle in handles} == {
            handle.server_id for handle in await runner.list_running()
        }, "all that run are listed"
        async with anyio.create_task_group() as stops:
            for handle in handles:
                stops.start_soon(runner.stop, handle)
        assert await runner.list_running() == [], "all that were stopped are gone"

    async def test_same_identity_may_be_used_again_after_the_end(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """A server that failed to get its port is started again as who it is."""
        identity = {SERVER_ID_VARIABLE: new_server_id()}
        first = await kit.start(runner, environment=identity)
        await runner.stop(first)
        again = await kit.start(runner, environment=identity)
        kit.server_ids.append(again.server_id)
        assert again.server_id == first.server_id, "config.server_id is the identity"
        assert await runner.is_running(again), "the second server is running"
        await runner.stop(again)
