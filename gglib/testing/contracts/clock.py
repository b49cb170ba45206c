"""What every clock promises."""

from __future__ import annotations

import math
import time

import anyio
import anyio.lowlevel
import pytest

from gglib.ports.clock import Clock
from gglib.testing.contracts.backends import Contract

__all__ = ["ClockContract"]

#: How long a test waits for what should be at once.
_PATIENCE_S = 10.0


class ClockContract(Contract):
    """What every clock keeps.

    Subclass it in a test module under a name that begins with ``Test``, and override the
    fixture ``clock``; for a clock that is driven, ``pass_time`` too::

        class TestMyClock(ClockContract):
            tells_unix_time = False

            @pytest.fixture
            def clock(self):
                return MyClock()

            async def pass_time(self, clock, seconds):
                clock.advance(seconds)
    """

    tells_unix_time: bool = True
    """Whether ``now()`` is the time of the world; a fake clock's need not be."""

    sleeps_overlap: bool = True
    """Whether the time of sleeps that begin together passes once. A clock that jumps to the
    end of each sleep, one after the other, says no."""

    resolution_s: float = 0.001
    """By how much a sleep may end early: a tick of the clock."""

    @pytest.fixture
    def clock(self) -> Clock:
        """Return the clock."""
        raise NotImplementedError("override the fixture clock: return your clock")

    async def pass_time(self, clock: Clock, seconds: float) -> None:
        """Let ``seconds`` pass on ``clock``, while somebody sleeps on it.

        Real time passes by itself; for a clock that is driven, drive it here.
        """

    async def sleep(self, clock: Clock, seconds: float) -> None:
        """Sleep on ``clock`` while time passes."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clock.sleep, seconds)
            await anyio.wait_all_tasks_blocked()
            await self.pass_time(clock, seconds)

    async def test_clock_is_of_the_port(self, clock: Clock) -> None:
        """Bootstrap and the test kit take subclasses only."""
        assert isinstance(clock, Clock), "a clock must be a subclass of Clock"

    async def test_now_is_a_number_of_seconds(self, clock: Clock) -> None:
        """Events and records keep it as it is."""
        now = clock.now()

        assert isinstance(now, float), "now() must be a float"
        assert math.isfinite(now) and now >= 0, "now() must be finite, and not before 1970"  # noqa: PT018

    async def test_now_is_unix_time(self, clock: Clock) -> None:
        """What it says is what the machine says."""
        if not self.tells_unix_time:
            pytest.skip("tells_unix_time = False: this clock has a time of its own")
        before = time.time()
        now = clock.now()
        after = time.time()

        assert before - 1 <= now <= after + 1, "now() must be Unix seconds"

    async def test_monotonic_never_goes_back(self, clock: Clock) -> None:
        """However often it is asked, and across sleeps."""
        seen = [clock.monotonic() for _ in range(1000)]
        await self.sleep(clock, 0.01)
        seen += [clock.monotonic() for _ in range(1000)]

        assert all(math.isfinite(moment) for moment in seen), "monotonic() must be finite"
        assert seen == sorted(seen), "monotonic() must never go back"

    @pytest.mark.parametrize("seconds", [0.0, 0.001, 0.02])
    async def test_sleep_lasts_as_long_as_asked(self, clock: Clock, seconds: float) -> None:
        """By the clock's own measure, and no shorter."""
        began = clock.monotonic()
        with anyio.fail_after(_PATIENCE_S):
            await self.sleep(clock, seconds)

        slept = clock.monotonic() - began
        assert slept >= seconds - self.resolution_s, "sleep() must last as long as it was asked to"

    async def test_sleep_takes_whole_numbers(self, clock: Clock) -> None:
        """Settings are often written without a point."""
        with anyio.fail_after(_PATIENCE_S):
            await self.sleep(clock, 0)

    async def test_two_sleepers_wake_in_the_order_of_their_times(self, clock: Clock) -> None:
        """The later to begin, with the shorter sleep, wakes first."""
        if not self.sleeps_overlap:
            pytest.skip("sleeps_overlap = False: this clock jumps to the end of each sleep")
        woken: list[float] = []

        async def sleep(seconds: float) -> None:
            await clock.sleep(seconds)
            woken.append(seconds)

        with anyio.fail_after(_PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(sleep, 0.2)
                tasks.start_soon(sleep, 0.02)
                await anyio.wait_all_tasks_blocked()
                await self.pass_time(clock, 0.02)
                await anyio.wait_all_tasks_blocked()
                await self.pass_time(clock, 0.2)

        assert woken == [0.02, 0.2], "sleepers must wake in the order of their times"

    @pytest.mark.parametrize("seconds", [0, 0.001, 3600])
    async def test_sleep_is_a_cancellation_point(self, clock: Clock, seconds: float) -> None:
        """In a cancelled scope it does not return, even for 0."""
        returned = False
        with anyio.CancelScope() as scope:
            scope.cancel()
            await clock.sleep(seconds)
            returned = True

        assert not returned, f"sleep({seconds}) must be a cancellation point"

    async def test_sleep_that_is_cancelled_ends_at_once(self, clock: Clock) -> None:
        """Nobody waits for the rest of it, and the clock goes on."""
        with anyio.fail_after(_PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(clock.sleep, 3600)
                await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            await self.sleep(clock, 0.001)
