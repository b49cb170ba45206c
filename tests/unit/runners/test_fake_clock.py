"""Time that moves when it is told to, or when nobody has anything else to do."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from gglib.errors import InvalidValue
from gglib.testing import FakeClock

SECONDS = st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0, 600.0])


async def turns(count: int = 50) -> None:
    """Let everybody run."""
    for _ in range(count):
        await checkpoint()


def test_clock_made_outside_an_event_loop_begins_where_it_is_told() -> None:
    """Fixtures and module constants make clocks."""
    clock = FakeClock(now=100.0)
    assert (clock.now(), clock.monotonic(), clock.sleepers) == (100.0, 0.0, 0)


async def test_clock_that_is_not_moved_stands_still() -> None:
    """However long its sleepers wait."""
    clock = FakeClock()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(clock.sleep, 0.001)
        await turns()
        assert (clock.monotonic(), clock.sleepers) == (0.0, 1)
        await clock.advance(0.001)
    assert clock.sleepers == 0


async def test_advance_moves_both_times() -> None:
    """By the same, also where nobody sleeps."""
    clock = FakeClock(now=1000.0)
    await clock.advance(2.5)
    await clock.advance(0)
    assert (clock.now(), clock.monotonic()) == (1002.5, 2.5)


@pytest.mark.parametrize("seconds", [-1.0, math.inf, math.nan])
async def test_advance_by_what_is_no_time_is_refused(seconds: float) -> None:
    """Time does not go back, and has no end."""
    clock = FakeClock()
    with pytest.raises(InvalidValue, match="seconds"):
        await clock.advance(seconds)


@pytest.mark.parametrize("auto_advance", [False, True])
@pytest.mark.parametrize("seconds", [0, -1.0])
async def test_sleep_of_no_time_is_a_checkpoint(seconds: float, auto_advance: bool) -> None:
    """It returns without the clock being moved."""
    clock = FakeClock(auto_advance=auto_advance)
    await clock.sleep(seconds)
    assert clock.monotonic() == 0.0
    with anyio.CancelScope() as scope:
        scope.cancel()
        await clock.sleep(seconds)
    assert scope.cancelled_caught


async def test_sleeper_that_sleeps_again_is_woken_within_one_advance() -> None:
    """At its own times, not at the end of the advance."""
    clock = FakeClock()
    woken: list[float] = []

    async def tick() -> None:
        for _ in range(5):
            await clock.sleep(1.0)
            woken.append(clock.monotonic())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        await clock.advance(3.5)
        assert (woken, clock.monotonic()) == ([1.0, 2.0, 3.0], 3.5)
        await clock.advance(10)
    assert woken == [1.0, 2.0, 3.0, 4.0, 5.0]


async def test_sleeper_runs_before_the_next_one_wakes() -> None:
    """What it does in several turns is done at its own time."""
    clock = FakeClock()
    seen: list[float] = []

    async def first() -> None:
        await clock.sleep(1.0)
        await turns(10)
        seen.append(clock.monotonic())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first)
        tasks.start_soon(clock.sleep, 2.0)
        await clock.advance(2.0)
    assert seen == [1.0]


@pytest.mark.parametrize("auto_advance", [False, True])
async def test_cancelled_sleeper_is_forgotten(auto_advance: bool) -> None:
    """Time does not stop for it, and the others are woken as before."""
    clock = FakeClock(auto_advance=auto_advance)
    for _ in range(3):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clock.sleep, 5.0)
            await checkpoint()
            tasks.cancel_scope.cancel()
    assert clock.sleepers == 0
    await clock.advance(1.0)
    assert clock.monotonic() == 1.0


async def test_auto_advance_jumps_over_ten_minutes() -> None:
    """Nobody has to move the clock."""
    clock = FakeClock(auto_advance=True)
    with anyio.fail_after(5):
        await clock.sleep(600)
    assert clock.monotonic() == 600.0


async def test_auto_advance_lets_everybody_run_first() -> None:
    """A task that works without sleeping is not overtaken by a deadline."""
    clock = FakeClock(auto_advance=True)

    async def work() -> None:
        await turns(20)

    with anyio.move_on_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clock.sleep, 1.0)
            await work()
            assert clock.monotonic() == 0.0


async def test_auto_advance_goes_on_when_its_driver_is_cancelled() -> None:
    """Another sleeper moves the time then."""
    clock = FakeClock(auto_advance=True)
    woken: list[float] = []

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(clock.monotonic())

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            async with anyio.create_task_group() as first:
                first.start_soon(sleep, 1.0)
                await checkpoint()
                for seconds in (3.0, 2.0):
                    tasks.start_soon(sleep, seconds)
                await checkpoint()
                first.cancel_scope.cancel()
    assert woken == [2.0, 3.0]


async def test_auto_advance_does_not_jump_to_the_end_of_time() -> None:
    """Who sleeps for ever is never woken, and does not keep the others."""
    clock = FakeClock(auto_advance=True)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clock.sleep, math.inf)
            await clock.sleep(1.0)
            tasks.cancel_scope.cancel()
    assert clock.monotonic() == 1.0


async def test_advance_of_a_clock_that_moves_itself_waits_for_it() -> None:
    """Sleepers wake on the way."""
    clock = FakeClock(auto_advance=True)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clock.sleep, 1.0)
            await clock.advance(2.0)
    assert (clock.monotonic(), clock.sleepers) == (2.0, 0)


def woken_in_order(backend: str, sleeps: list[float], pass_time: bool) -> list[tuple[float, int]]:
    """Return when which of the sleepers woke, as their clock says."""
    woken: list[tuple[float, int]] = []

    async def main() -> None:
        clock = FakeClock(auto_advance=not pass_time)
        move: Callable[[], Awaitable[None]] = lambda: clock.advance(1000.0)  # noqa: E731

        async def sleep(number: int, seconds: float, *, task_status: anyio.abc.TaskStatus) -> None:
            task_status.started()
            await clock.sleep(seconds)
            woken.append((clock.monotonic(), number))

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                for number, seconds in enumerate(sleeps):
                    await tasks.start(sleep, number, seconds)
                if pass_time:
                    await move()

    anyio.run(main, backend=backend)
    return woken


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=20, deadline=None)
@given(sleeps=st.lists(SECONDS, max_size=8))
def test_sleepers_wake_in_order_of_deadline_then_arrival(backend: str, sleeps: list[float]) -> None:
    """Whatever their order, and at exactly their time."""
    expected = sorted((seconds, number) for number, seconds in enumerate(sleeps))
    assert woken_in_order(backend, sleeps, pass_time=True) == expected


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=20, deadline=None)
@given(sleeps=st.lists(SECONDS, max_size=8))
def test_time_that_moves_itself_wakes_each_at_its_time(backend: str, sleeps: list[float]) -> None:
    """In the order of their times."""
    woken = woken_in_order(backend, sleeps, pass_time=False)
    assert sorted(woken) == sorted((seconds, number) for number, seconds in enumerate(sleeps))
    assert [moment for moment, _ in woken] == sorted(moment for moment, _ in woken)
