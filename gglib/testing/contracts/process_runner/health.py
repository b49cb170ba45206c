"""What ``health`` promises."""

from __future__ import annotations

import anyio
import pytest

from gglib.domain.health import ServerHealth
from gglib.errors import NotRunning
from gglib.testing.contracts.process_runner.behaviour import Behaviour
from gglib.testing.contracts.process_runner.kit import RunnerKit, RunnerPromises
from gglib.testing.contracts.process_runner.outside import stranger_on
from gglib.testing.contracts.process_runner.patient import PatientRunner

__all__ = ["HealthPromises"]


class HealthPromises(RunnerPromises):
    """``health`` tells how a running server is; only one that does not run is an error."""

    async def test_ready_server_is_healthy(self, kit: RunnerKit, runner: PatientRunner) -> None:
        """With the time of the check."""
        before = kit.clock.now()
        handle = await kit.start(runner)
        health = await kit.until_healthy(runner, handle)
        assert health.last_check is not None, "a healthy answer carries the time of its check"
        assert before <= health.last_check <= kit.clock.now(), "last_check is the clock's time"
        assert health.latency_s is None or health.latency_s >= 0, "a latency is not negative"

    async def test_server_is_asked_where_and_as_its_engine_says(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """The engine's health path and statuses, whatever they are."""
        self.needs("has_processes")
        kit.engine.tell_health_at("/stub/ready", 203)
        handle = await kit.start(runner)
        with kit.patience("health asks the engine's health_path, and heeds its health_statuses"):
            while not (await runner.health(handle)).healthy:
                await kit.pause()

    @pytest.mark.parametrize("behaviour", [Behaviour.LOADS, Behaviour.SILENT])
    async def test_server_that_is_not_ready_is_unhealthy_with_a_message(
        self, kit: RunnerKit, runner: PatientRunner, behaviour: Behaviour
    ) -> None:
        """Loading, or not listening yet: a state, never an exception."""
        handle = await kit.start(runner, behaviour)
        for _ in range(5):
            health = await runner.health(handle)
            assert not health.healthy, "a server that is not ready is unhealthy"
            assert health.message, "an unhealthy answer says why"
            assert health.last_check is None, "last_check is that of a successful check"
            await kit.pause()

    async def test_port_that_somebody_else_holds_is_unhealthy(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """An old process that answers on the server's port is not taken for it."""
        self.needs("has_ports")
        handle = await kit.start(runner, Behaviour.SILENT)
        with stranger_on(handle.port):
            health = await runner.health(handle)
        assert not health.healthy, "a stranger's answer is not the server's"
        assert health.message, "an unhealthy answer says why"
        assert health.port_held_by, "port_held_by says who answers there"

    async def test_port_that_nobody_took_is_not_taken(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """Else a server that died of something else would be started again and again."""
        handle = await kit.start(runner, Behaviour.DIES)
        await kit.until_gone(runner, handle)
        assert not await runner.port_is_taken(handle), "the port of an ended server is free"

    async def test_health_of_a_stopped_server_raises_not_running(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """Also when it was healthy a moment ago."""
        handle = await kit.start(runner)
        await kit.until_healthy(runner, handle)
        await runner.stop(handle)
        with pytest.raises(NotRunning) as caught:
            await runner.health(handle)
        assert caught.value.server == "alpha", "NotRunning names the model"

    async def test_health_of_a_server_that_died_raises_not_running(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """Once its process does not exist."""
        handle = await kit.start(runner, Behaviour.DIES)
        await kit.until_gone(runner, handle)
        with pytest.raises(NotRunning):
            await runner.health(handle)

    async def test_ten_checks_at_once_agree(self, kit: RunnerKit, runner: PatientRunner) -> None:
        """Methods may be called concurrently, for the same server too."""
        handle = await kit.start(runner)
        await kit.until_healthy(runner, handle)
        answers: list[ServerHealth] = []

        async def ask() -> None:
            answers.append(await runner.health(handle))

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(ask)
        assert [answer.healthy for answer in answers] == [True] * 10, "ten checks agree"
