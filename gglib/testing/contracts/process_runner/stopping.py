"""What ``stop`` promises."""

from __future__ import annotations

import signal
from contextlib import suppress

import anyio
import anyio.lowlevel
import pytest

from gglib.domain.handle import ProcessHandle
from gglib.errors import NotRunning
from gglib.testing.contracts.process_runner.behaviour import ASKED, Behaviour
from gglib.testing.contracts.process_runner.kit import RunnerKit, RunnerPromises
from gglib.testing.contracts.process_runner.outside import lives, port_answers
from gglib.testing.contracts.process_runner.patient import PatientRunner

__all__ = ["StopPromises"]

_BEHAVIOURS_THAT_RUN = (Behaviour.READY, Behaviour.LOADS, Behaviour.SILENT, Behaviour.DEAF)


class StopPromises(RunnerPromises):
    """``stop`` returns when the server, all of it, is gone; and touches nobody else."""

    @pytest.mark.parametrize("behaviour", _BEHAVIOURS_THAT_RUN)
    async def test_stopped_server_is_gone_when_stop_returns(
        self, kit: RunnerKit, runner: PatientRunner, behaviour: Behaviour
    ) -> None:
        """Ready, loading, or not listening yet: its process is dead and its port closed."""
        handle = await kit.start(runner, behaviour)
        await runner.stop(handle)
        assert not await runner.is_running(handle), "a stopped server is not running"
        assert await runner.list_running() == [], "a stopped server is not listed"
        if self.has_processes:
            assert not lives(handle.pid), "stop returns when the process is dead"
        if self.has_ports:
            assert not port_answers(handle.port), "stop returns when the port is closed"

    async def test_second_stop_raises_not_running(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """And says of what."""
        handle = await kit.start(runner)
        await runner.stop(handle)
        with pytest.raises(NotRunning) as caught:
            await runner.stop(handle)
        assert caught.value.server == "alpha", "NotRunning names the model"

    async def test_server_that_has_just_been_started_can_be_stopped(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """Its program is being executed, and does not show yet what it carries."""
        for _ in range(20 if self.has_processes else 2):
            handle = await kit.start(runner)
            await runner.stop(handle)
            assert not await runner.is_running(handle), "a stopped server is not running"
            if self.has_processes:
                assert not lives(handle.pid), "stop ends a server however young it is"

    async def test_stop_of_a_server_that_died_raises_not_running(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """It is not running, whoever ended it."""
        handle = await kit.start(runner, Behaviour.DIES)
        await kit.until_gone(runner, handle)
        with pytest.raises(NotRunning):
            await runner.stop(handle)

    async def test_concurrent_stops_both_return(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """Two who stop the same server wait for the same end."""
        handle = await kit.start(runner)
        gone: list[bool] = []

        async def stop() -> None:
            await runner.stop(handle)
            gone.append(not await runner.is_running(handle))

        async with anyio.create_task_group() as stops:
            stops.start_soon(stop)
            stops.start_soon(stop)
        assert gone == [True, True], "of two concurrent stops both return, when it is gone"

    async def test_server_is_asked_before_it_is_killed(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """One that heeds SIGTERM ends by it, and can say so before."""
        is_heard = self.has_processes and self.keeps_output
        if not is_heard:
            self.needs("knows_exit_status")
        handle = await kit.start(runner)
        await kit.until_healthy(runner, handle)
        await runner.stop(handle)
        if is_heard:
            assert ASKED in await kit.lines(runner, handle, 1000), "stop asks first, by SIGTERM"
        if self.knows_exit_status:
            assert await runner.wait(handle) == -signal.SIGTERM, "stop asks first"

    async def test_server_that_is_being_stopped_runs_until_it_is_dead(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """Whoever asks meanwhile is told so; a second one who stops it waits for the same end."""
        handle = await kit.start(runner, Behaviour.DEAF)
        await kit.until_healthy(runner, handle)
        broken: set[str] = set()
        stopped = anyio.Event()

        async def stop() -> None:
            await runner.stop(handle)
            stopped.set()

        async def stop_too() -> None:
            with suppress(NotRunning):
                await runner.stop(handle)
            if await runner.is_running(handle) or (self.has_processes and lives(handle.pid)):
                broken.add("a second stop returns when the server is gone, as the first does")

        async def look() -> None:
            listed = handle in await runner.list_running()
            if await runner.is_running(handle):
                if not listed:
                    broken.add("a server that is being stopped is listed until it is dead")
            elif self.has_processes and lives(handle.pid):
                broken.add("a server that is being stopped is running until it is dead")
            try:
                await runner.health(handle)
            except NotRunning:
                if await runner.is_running(handle):
                    broken.add("health raises NotRunning only when the process does not exist")
            except Exception as error:
                broken.add(f"health of a server that is being stopped raised {error!r}")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stop)
            await anyio.lowlevel.checkpoint()
            tasks.start_soon(stop_too)
            while not stopped.is_set():
                await look()
                if self.has_processes:
                    await anyio.sleep(0.01)
        assert not broken, "; ".join(sorted(broken))

    async def test_deaf_server_is_killed_after_the_grace(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """Asking did not help."""
        handle = await kit.start(runner, Behaviour.DEAF)
        await kit.until_healthy(runner, handle)
        with kit.patience("a server that ignores SIGTERM is killed (is the grace short?)"):
            await runner.stop(handle)
        assert not await runner.is_running(handle), "a killed server is not running"
        if self.knows_exit_status:
            assert await runner.wait(handle) == -signal.SIGKILL, "killing comes after asking"

    async def test_everything_the_server_started_ends_with_it(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """Children in its group, in sessions of their own, orphaned, or deaf."""
        self.needs("has_processes")
        handle = await kit.start(runner, Behaviour.HAS_FAMILY)
        await kit.until_healthy(runner, handle)
        family = {process.pid for process in kit.processes()}
        assert len(family) >= 5, "the stub has started its four children"
        assert await runner.list_running() == [handle], "what a server starts is not another one"
        await runner.stop(handle)
        left = sorted(process.pid for process in kit.processes())
        assert left == [], "stop ends everything that the server started"

    async def test_cancelled_stop_leaves_the_server_stopped_or_on_its_way(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """It is never half-known: it ends, or another stop ends it."""
        handle = await kit.start(runner, Behaviour.DEAF)
        await kit.until_healthy(runner, handle)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.stop, handle)
            await anyio.sleep(0.02 if self.has_processes else 0)
            tasks.cancel_scope.cancel()
        promise = "a server whose stop was cancelled can be stopped again, or has ended"
        with kit.patience(promise), suppress(NotRunning):
            await runner.stop(handle)
        assert not await runner.is_running(handle), "after a second stop it is gone"
        assert await runner.list_running() == [], "after a second stop it is not listed"

    async def test_other_servers_run_on(self, kit: RunnerKit, runner: PatientRunner) -> None:
        """Those of the same model too."""
        handles: list[ProcessHandle] = [await kit.start(runner) for _ in range(3)]
        await runner.stop(handles[1])
        running = [await runner.is_running(handle) for handle in handles]
        assert running == [True, False, True], "stop ends one server and no other"
        assert await runner.list_running() == [handles[0], handles[2]], "the others are listed"
