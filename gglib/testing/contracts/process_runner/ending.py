"""What ``wait`` promises, and what is known of servers that end by themselves."""

from __future__ import annotations

import os
import signal

import anyio

from gglib.testing.contracts.process_runner.behaviour import Behaviour
from gglib.testing.contracts.process_runner.kit import RunnerKit, RunnerPromises
from gglib.testing.contracts.process_runner.patient import PatientRunner

__all__ = ["EndPromises"]


class EndPromises(RunnerPromises):
    """An end is noticed, whoever brought it about."""

    async def test_server_that_dies_while_starting_is_noticed(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """``wait`` returns its exit status, and it is not running."""
        handle = await kit.start(runner, Behaviour.DIES)
        with kit.patience("wait returns when a server ends by itself"):
            status = await runner.wait(handle)
        assert not await runner.is_running(handle), "a server that has ended is not running"
        if self.knows_exit_status:
            assert status == 3, "wait returns the exit status"

    async def test_server_that_is_killed_from_outside_is_noticed(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """As when the system runs out of memory."""
        self.needs("has_processes")
        handle = await kit.start(runner)
        await kit.until_healthy(runner, handle)
        assert handle.pid is not None
        os.kill(handle.pid, signal.SIGKILL)
        with kit.patience("wait returns when a server is killed"):
            status = await runner.wait(handle)
        assert not await runner.is_running(handle), "a killed server (a zombie) is not running"
        assert await runner.list_running() == [], "a killed server is not listed"
        if self.knows_exit_status:
            assert status == -signal.SIGKILL, "a death by signal is a negative status"

    async def test_all_who_wait_see_the_stop(self, kit: RunnerKit, runner: PatientRunner) -> None:
        """Three waiters, one stop."""
        handle = await kit.start(runner)
        seen: list[int | None] = []

        async def wait() -> None:
            seen.append(await runner.wait(handle))

        with kit.patience("wait returns when the server is stopped"):
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(wait)
                await kit.pause()
                assert seen == [], "wait does not return while the server runs"
                await runner.stop(handle)
        assert len(seen) == 3, "all who wait are told"
        assert len(set(seen)) == 1, "all who wait are told the same"

    async def test_waiting_for_a_gone_server_returns_at_once(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """As often as it is asked."""
        handle = await kit.start(runner)
        await runner.stop(handle)
        with kit.patience("wait returns at once for a server that is gone"):
            for _ in range(2):
                await runner.wait(handle)

    async def test_cancelled_wait_leaves_the_server_running(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """Who stops waiting changes nothing."""
        handle = await kit.start(runner)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.wait, handle)
            await kit.pause()
            tasks.cancel_scope.cancel()
        assert await runner.is_running(handle), "a cancelled wait leaves the server alone"
