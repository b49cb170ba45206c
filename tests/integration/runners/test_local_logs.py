"""The output of local servers: kept, private, bounded, followed."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import anyio
import httpx
from support.servers import line_with

from gglib.bootstrap import SystemClock
from gglib.domain.config import ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.ports.clock import Clock
from gglib.ports.context import AdapterContext
from gglib.ports.process_runner import ProcessRunner
from gglib.testing.contexts import make_context
from gglib.testing.stub_engine import StubEngine
from gglib_adapters.runners.local import open_local_runner


class SteppedClock(SystemClock):
    """A clock whose only sleeper, the log task, goes round once per ``round``."""

    def __init__(self) -> None:
        self._go = anyio.Event()
        self._back = anyio.Event()

    async def sleep(self, seconds: float) -> None:
        """Wait for the next round."""
        self._go = anyio.Event()
        self._back.set()
        await self._go.wait()

    async def round(self) -> None:
        """Let the sleeper go, and return when it is back."""
        await self._back.wait()
        self._back = anyio.Event()
        self._go.set()
        await self._back.wait()


def context(
    data_dir: Path, engine: StubEngine, clock: Clock | None = None, **settings: Any
) -> AdapterContext:
    """Return what a local runner with that engine needs."""
    return make_context(
        data_dir, name="local", engines={"stub": engine}, clock=clock, settings=settings
    )


def config(name: str = "alpha") -> ServerConfig:
    """Return a configuration for the stub."""
    return ServerConfig(model_id=1, model_name=name, model_path="/none.gguf", engine="stub")


async def say(runner: ProcessRunner, handle: ProcessHandle, text: str) -> None:
    """Have the server print ``text``; return when it is in the file."""
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        await client.post(f"{handle.base_url}/stub/print", content=text)


async def test_output_is_kept_after_the_end_and_private(data_dir: Path) -> None:
    """The last lines of a stopped server are readable, by its user alone."""
    engine = StubEngine(lines=[f"line {number}" for number in range(30)])
    async with open_local_runner(context(data_dir, engine)) as runner:
        handle = await runner.start(config("org/model name"))
        await line_with(runner, handle, "ready at")
        await runner.stop(handle)
        lines = [line async for line in runner.logs(handle, tail=20)]
        assert [line async for line in runner.logs(handle, tail=0)] == []
    assert len(lines) == 20
    assert lines[0] == "line 12"
    assert lines[-1].startswith("ready at")
    folder = data_dir / "logs"
    assert [f"org_model_name-{handle.server_id}.log"] == [path.name for path in folder.iterdir()]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(next(folder.iterdir()).stat().st_mode) == 0o600


async def test_long_output_is_rotated_while_the_server_writes(data_dir: Path) -> None:
    """Beyond the limit it moves to one older file of bounded size; the server writes on."""
    clock = SteppedClock()
    engine = StubEngine(noise_bytes=20_000)
    async with open_local_runner(context(data_dir, engine, clock, log_max_bytes=8192)) as runner:
        handle = await runner.start(config())
        await line_with(runner, handle, "ready at")
        file = next((data_dir / "logs").glob("*.log"))
        older = Path(f"{file}.1")

        await clock.round()

        assert (file.stat().st_size, older.stat().st_size) == (0, 8192)
        assert stat.S_IMODE(older.stat().st_mode) == 0o600
        await say(runner, handle, "after")
        lines = [line async for line in runner.logs(handle, tail=3)]
        assert lines[-1] == "after"
        assert lines[-2].startswith("ready at")
        assert file.read_bytes() == b"after\n"
        await runner.stop(handle)


async def test_failing_rotation_does_not_take_the_runner_down(data_dir: Path) -> None:
    """A log folder that has become unusable costs rotation, nothing else."""
    clock = SteppedClock()
    async with open_local_runner(context(data_dir, StubEngine(), clock)) as runner:
        (data_dir / "logs").write_text("not a folder")
        await clock.round()
        await clock.round()
        assert await runner.list_running() == []


async def test_old_output_goes_but_never_that_of_a_running_server(data_dir: Path) -> None:
    """``log_keep`` files stay per model; the oldest server, which still runs, keeps its own."""
    async with open_local_runner(context(data_dir, StubEngine(), log_keep=2)) as runner:
        oldest = await runner.start(config())
        other = await runner.start(config("beta"))
        later = []
        for _ in range(4):
            handle = await runner.start(config())
            await runner.stop(handle)
            later.append(handle)
        kept = {path.name for path in (data_dir / "logs").iterdir()}
        alpha = [f"alpha-{handle.server_id}.log" for handle in (oldest, *later[-2:])]
        assert {*alpha, f"beta-{other.server_id}.log"} == kept
        await runner.stop(oldest)
        await runner.stop(other)


async def test_ended_servers_of_a_model_are_found_by_their_output(data_dir: Path) -> None:
    """The newest first; those that run, and those of other models, are not among them."""
    engine = StubEngine(exit_status=1, lines=["no memory"])
    async with open_local_runner(context(data_dir, engine)) as runner:
        ended = [await runner.start(config()) for _ in range(2)]
        for handle in [*ended, await runner.start(config("beta"))]:
            await runner.wait(handle)
        engine.options = {}
        running = await runner.start(config())

        past = await runner.past_servers("alpha")

        assert [handle.server_id for handle in past] == [h.server_id for h in reversed(ended)]
        assert abs(past[0].started_at - ended[1].started_at) < 1
        assert [line async for line in runner.logs(past[0])] == ["no memory"]
        assert await runner.past_servers("gamma") == []
        await runner.stop(running)
