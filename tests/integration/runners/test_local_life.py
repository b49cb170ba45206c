"""The local runner starts, watches and ends real processes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from support.servers import (
    child_pids,
    line_with,
    lives,
    local_context,
    port_answers,
    processes_of,
    stub_config,
    until_ready,
)

from gglib.domain.config import ServerConfig
from gglib.errors import (
    ConfigurationError,
    EngineNotFound,
    NotRunning,
    StartFailed,
)
from gglib.testing.stub_engine import MissingEngine, StubEngine
from gglib_adapters.runners.local import open_local_runner


async def test_started_server_answers_and_stopped_one_is_gone(data_dir: Path) -> None:
    """A server is healthy after its load; after stop its process and port are gone."""
    async with open_local_runner(local_context(data_dir, StubEngine())) as runner:
        handle = await runner.start(stub_config())
        await until_ready(runner, handle)
        assert await runner.is_running(handle)
        assert [handle] == await runner.list_running()

        await runner.stop(handle)

        assert not lives(handle.pid or 0)
        assert not port_answers(handle.port)
        assert not await runner.is_running(handle)
        assert await runner.list_running() == []
        assert await runner.wait(handle) == -signal.SIGTERM
        with pytest.raises(NotRunning):
            await runner.health(handle)


async def test_server_not_listening_is_unhealthy_with_a_message(data_dir: Path) -> None:
    """A refused connection is a state, not an error."""
    async with open_local_runner(local_context(data_dir, StubEngine(listen=False))) as runner:
        handle = await runner.start(stub_config())
        await line_with(runner, handle, "not listening")

        health = await runner.health(handle)

        assert (health.healthy, health.message) == (False, "not listening yet")
        await runner.stop(handle)


async def test_loading_server_is_unhealthy_with_its_own_words(data_dir: Path) -> None:
    """While a model loads the engine's message is passed on; the last good check is kept."""
    gate = data_dir / "gate"
    os.mkfifo(gate)
    async with open_local_runner(local_context(data_dir, StubEngine(gate=str(gate)))) as runner:
        handle = await runner.start(stub_config())
        await line_with(runner, handle, "listening")

        health = await runner.health(handle)
        assert (
            health.healthy,
            health.message,
            health.last_check,
        ) == (False, "Loading model", None)

        await anyio.Path(gate).write_bytes(b"")
        await until_ready(runner, handle)
        await runner.stop(handle)


async def test_engine_with_its_own_health_path_is_asked_there(data_dir: Path) -> None:
    """By the runner that started the server, and by one that found it."""

    class OtherPathEngine(StubEngine):
        @property
        def health_path(self) -> str:
            return "/nowhere"

        @property
        def health_statuses(self) -> frozenset[int]:
            return frozenset({404})

    async with (
        open_local_runner(local_context(data_dir, OtherPathEngine())) as runner,
        open_local_runner(local_context(data_dir, OtherPathEngine())) as other,
    ):
        handle = await runner.start(stub_config())
        await runner.health(handle)
        await until_ready(runner, handle)
        assert (await other.health(handle)).healthy
        await runner.stop(handle)


async def test_start_cancelled_during_the_spawn_leaves_nothing(data_dir: Path) -> None:
    """The cancelled call returns when what it had begun is gone."""
    engine = StubEngine()
    async with open_local_runner(local_context(data_dir, engine)) as runner:
        with anyio.CancelScope() as scope:
            engine.before_spawn = lambda port: scope.cancel()
            await runner.start(stub_config())
        assert scope.cancelled_caught
        assert len(engine.ports) == 1
        assert processes_of(data_dir) == []
        assert await runner.list_running() == []


async def test_stop_cancelled_goes_on_to_the_end(data_dir: Path) -> None:
    """Who gives up waiting for a stop does not call it off."""
    engine = StubEngine(deaf=True)
    async with open_local_runner(local_context(data_dir, engine, stop_grace_s=0.1)) as runner:
        handle = await runner.start(stub_config())
        await line_with(runner, handle, "ready at")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await runner.stop(handle)
        assert await runner.is_running(handle)
        assert await runner.wait(handle) == -signal.SIGKILL


async def test_server_that_dies_while_starting_is_noticed_at_once(data_dir: Path) -> None:
    """Its exit status is known and its output is kept."""
    engine = StubEngine(exit_status=3, lines=["no such tensor"])
    async with open_local_runner(local_context(data_dir, engine)) as runner:
        handle = await runner.start(stub_config())
        with anyio.fail_after(5):
            assert await runner.wait(handle) == 3
        with pytest.raises(NotRunning):
            await runner.stop(handle)
        assert [line async for line in runner.logs(handle)] == ["no such tensor"]
        assert await runner.list_running() == []
        assert not psutil.pid_exists(handle.pid or 0), "a zombie is left"


async def test_server_that_ignores_sigterm_is_killed_after_the_grace(data_dir: Path) -> None:
    """SIGKILL follows ``stop_grace_s`` after SIGTERM, not earlier."""
    engine = StubEngine(deaf=True)
    async with open_local_runner(local_context(data_dir, engine, stop_grace_s=0.2)) as runner:
        handle = await runner.start(stub_config())
        await line_with(runner, handle, "ready at")
        began = time.monotonic()
        await runner.stop(handle)
        assert time.monotonic() - began >= 0.2
        assert await runner.wait(handle) == -signal.SIGKILL
        assert not port_answers(handle.port)


async def test_grandchildren_of_a_killed_server_are_cleared_up(data_dir: Path) -> None:
    """When a leader dies by itself nothing it started stays behind."""
    engine = StubEngine(children=["group", "session", "orphan", "deaf"])
    async with open_local_runner(local_context(data_dir, engine)) as runner:
        handle = await runner.start(stub_config())
        await until_ready(runner, handle)
        pids = await child_pids(runner, handle)
        os.kill(handle.pid or 0, signal.SIGKILL)
        assert await runner.wait(handle) == -signal.SIGKILL
        with pytest.raises(NotRunning):
            await runner.stop(handle)
        assert [lives(pid) for pid in pids] == [False] * 4


async def test_program_that_cannot_be_executed_fails_the_start(data_dir: Path) -> None:
    """A command that is not there is a failed start, and says which command."""

    class BrokenEngine(StubEngine):
        def command(self, config: ServerConfig, port: int) -> list[str]:
            return ["/nonexistent/engine"]

    async with open_local_runner(local_context(data_dir, BrokenEngine())) as runner:
        with pytest.raises(StartFailed, match="/nonexistent/engine"):
            await runner.start(stub_config())


async def test_missing_engine_fails_the_start(data_dir: Path) -> None:
    """An engine that is not found starts nothing."""
    async with open_local_runner(local_context(data_dir, MissingEngine())) as runner:
        with pytest.raises(EngineNotFound):
            await runner.start(stub_config())


async def test_error_in_the_block_leaves_it_as_itself(data_dir: Path) -> None:
    """The runner's own tasks do not wrap a caller's error."""
    with pytest.raises(KeyError):
        async with open_local_runner(local_context(data_dir, StubEngine())):
            raise KeyError("mine")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stop_grace": 1}, "did you mean 'stop_grace_s'"),
        ({"log_keep": 0}, "log_keep is 0"),
        ({"health_timeout_s": "soon"}, "health_timeout_s is 'soon'"),
    ],
)
async def test_wrong_setting_is_refused(
    data_dir: Path, settings: dict[str, Any], message: str
) -> None:
    """An unknown key names the nearest; a wrong value names its range."""
    with pytest.raises(ConfigurationError, match=message):
        async with open_local_runner(local_context(data_dir, StubEngine(), **settings)):
            pass


async def cycle(data_dir: Path, cycles: int) -> None:
    """Start and stop servers one after the other; check that nothing accumulates."""
    engine = StubEngine(children=["session"], noise_bytes=1000)
    this = psutil.Process()
    async with open_local_runner(local_context(data_dir, engine, log_keep=2)) as runner:

        async def once() -> None:
            handle = await runner.start(stub_config())
            await until_ready(runner, handle)
            await runner.stop(handle)

        for _ in range(3):
            await once()
        before = (this.num_fds(), len(this.children(recursive=True)), this.num_threads())
        for _ in range(cycles):
            await once()
        after = (this.num_fds(), len(this.children(recursive=True)), this.num_threads())
        assert (before[0], before[1]) == (after[0], after[1])
        assert after[2] <= before[2] + 8
        assert len(list((data_dir / "logs").iterdir())) == 2
        assert processes_of(data_dir) == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_twenty_cycles_leave_nothing(data_dir: Path) -> None:
    """No process, socket, descriptor or file is left by start and stop."""
    await cycle(data_dir, 20)


@pytest.mark.soak
async def test_two_hundred_cycles_leave_nothing(data_dir: Path) -> None:
    """The same, long."""
    await cycle(data_dir, 200)
