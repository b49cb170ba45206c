"""Every clock keeps its port's promises."""

from __future__ import annotations

import pytest

from gglib.bootstrap import SystemClock
from gglib.ports.clock import Clock
from gglib.testing import ClockContract, FakeClock


class TestSystemClock(ClockContract):
    """The machine's time."""

    @pytest.fixture
    def clock(self) -> Clock:
        return SystemClock()


class TestFakeClock(ClockContract):
    """A clock that a test moves."""

    tells_unix_time = False

    @pytest.fixture
    def clock(self) -> Clock:
        """Make one that stands still."""
        return FakeClock()

    async def pass_time(self, clock: Clock, seconds: float) -> None:
        """Move it."""
        assert isinstance(clock, FakeClock)
        await clock.advance(seconds)


class TestLeapingClock(ClockContract):
    """A clock that moves by itself when everybody sleeps."""

    tells_unix_time = False

    @pytest.fixture
    def clock(self) -> Clock:
        """Make one that leaps."""
        return FakeClock(auto_advance=True)
