"""Waiting for a server: whichever comes first, and how often it is asked."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest

from gglib.domain.config import ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.domain.health import ServerHealth
from gglib.errors import NotRunning
from gglib.ports.clock import Clock
from gglib.ports.process_runner import ProcessRunner
from gglib.services.readiness import Outcome, OutcomeKind, until_settled

HANDLE = ProcessHandle(
    model_id=1,
    model_name="alpha",
    pid=7,
    port=9000,
    started_at=1.0,
    server_id="01ARZ3NDEKTSV4RRFFQ69G5FAV",
    runner="local",
    node="here",
    base_url="http://127.0.0.1:9000",
)


class CountingClock(Clock):
    """A clock that stands still but for its short sleepers; long sleeps never end."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.sleeps: list[float] = []

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        if seconds > 1:
            await anyio.sleep_forever()
        self.seconds += seconds
        self.sleeps.append(seconds)
        await anyio.lowlevel.checkpoint()


class EagerClock(CountingClock):
    """A clock on which no time is long."""

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        await anyio.lowlevel.checkpoint()


class ScriptedRunner(ProcessRunner):
    """A runner whose one server answers from a script; then its checks hang for ever."""

    def __init__(self, *answers: ServerHealth | Exception, exit_status: int | None = None) -> None:
        self.answers: Iterator[ServerHealth | Exception] = iter(answers)
        self.exit_status = exit_status
        self.hangs = anyio.Event()

    async def start(self, config: ServerConfig) -> ProcessHandle:
        raise AssertionError("nothing is started here")

    async def stop(self, handle: ProcessHandle) -> None:
        raise AssertionError("nothing is stopped here")

    async def is_running(self, handle: ProcessHandle) -> bool:
        return True

    async def list_running(self) -> list[ProcessHandle]:
        return []

    async def health(self, handle: ProcessHandle) -> ServerHealth:
        answer = next(self.answers, None)
        if answer is None:
            self.hangs.set()
            await anyio.sleep_forever()
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        return answer

    async def wait(self, handle: ProcessHandle) -> int | None:
        if self.exit_status is None:
            await anyio.sleep_forever()
        await self.hangs.wait()
        return self.exit_status


LOADING = ServerHealth.unhealthy("Loading model")
READY = ServerHealth.ok(last_check=1.0)


async def settled(runner: ScriptedRunner, clock: Clock | None = None) -> Outcome:
    """Wait for the runner's server, for a minute of the clock's."""
    with anyio.fail_after(5):
        return await until_settled(runner, HANDLE, clock=clock or CountingClock(), timeout_s=60.0)


async def test_good_answer_settles_the_start() -> None:
    """Unhealthy answers before it do not."""
    assert await settled(ScriptedRunner(LOADING, LOADING, READY)) == Outcome(kind=OutcomeKind.READY)


async def test_death_is_noticed_while_a_health_check_hangs() -> None:
    """The process is watched beside the polling, not in turn with it."""
    assert await settled(ScriptedRunner(LOADING, exit_status=9)) == Outcome(
        kind=OutcomeKind.EXITED, exit_status=9
    )


async def test_timeout_ends_a_health_check_that_hangs() -> None:
    """No check holds the deadline up."""
    assert await settled(ScriptedRunner(), EagerClock()) == Outcome(kind=OutcomeKind.TIMEOUT)


async def test_stranger_on_the_port_settles_the_start() -> None:
    """There is nothing to wait for: the server cannot get the port any more."""
    held = ServerHealth.unhealthy("port 9000 is held by old (pid 3)", port_held_by="old (pid 3)")
    assert await settled(ScriptedRunner(LOADING, held)) == Outcome(
        kind=OutcomeKind.PORT_HELD, port_held_by="old (pid 3)"
    )


async def test_polling_is_quick_at_first_and_slower_later() -> None:
    """Every 5 ms for five seconds, every 100 ms from then on."""
    clock = CountingClock()
    await settled(ScriptedRunner(*[LOADING] * 1020, READY), clock)
    assert set(clock.sleeps[:999]) == {0.005}
    assert set(clock.sleeps[-10:]) == {0.1}
    assert clock.sleeps == sorted(clock.sleeps)


async def test_failing_runner_raises_its_own_error() -> None:
    """An adapter's error comes out as itself, not in a group."""
    with pytest.raises(RuntimeError, match="broken"):
        await settled(ScriptedRunner(LOADING, RuntimeError("broken")))


async def test_server_gone_at_a_health_check_has_exited() -> None:
    """``NotRunning`` is an end like any other, with its status."""
    runner = ScriptedRunner(NotRunning("alpha"), exit_status=4)
    runner.hangs.set()
    assert await settled(runner) == Outcome(kind=OutcomeKind.EXITED, exit_status=4)
