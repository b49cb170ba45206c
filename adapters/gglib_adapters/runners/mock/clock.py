"""Time that moves when a test says so, or when nobody has anything else to do."""

from __future__ import annotations

import itertools
import math
from bisect import insort

import anyio
import attrs
from anyio.lowlevel import checkpoint

from gglib.errors import InvalidValue
from gglib.ports.clock import Clock

__all__ = ["FakeClock"]

#: How many turns of the event loop without a sleeper coming or going count as rest. The longest
#: chain of wake-ups between two sleeps has to fit in; each turn takes a few microseconds.
_TURNS = 32


@attrs.define(order=True)
class _Sleeper:
    deadline: float
    arrival: int
    event: anyio.Event = attrs.field(factory=anyio.Event, order=False)
    woken: bool = attrs.field(default=False, order=False)


class FakeClock(Clock):
    """A clock that stands still until it is moved; runs on any event loop of anyio.

    ``now()`` begins at ``now`` (Unix seconds), ``monotonic()`` at 0. Time moves by ``advance``.
    With ``auto_advance`` it also moves by itself: as soon as everybody who could run has had
    turns and somebody sleeps, it jumps to the earliest deadline, so that a load of ten minutes
    takes no time. It cannot see what happens outside the event loop's tasks: beside real
    sockets, threads or processes it would jump over every timeout while they are at work.
    Give those a real clock, or ``advance`` by hand. And whoever sleeps again and again keeps
    it going, as long as he does.

    It may be made anywhere, and read from any thread; sleepers and ``advance`` belong to one
    event loop at a time.
    """

    __slots__ = ("_arrivals", "_auto", "_driver", "_elapsed", "_origin", "_sleepers", "_stirs")

    def __init__(self, *, now: float = 1_700_000_000.0, auto_advance: bool = False) -> None:
        self._origin = now
        self._auto = auto_advance
        self._elapsed = 0.0
        self._sleepers: list[_Sleeper] = []
        self._arrivals = itertools.count()
        self._driver: _Sleeper | None = None
        self._stirs = 0

    @property
    def sleepers(self) -> int:
        """How many sleep on this clock."""
        return len(self._sleepers)

    def now(self) -> float:
        """Return Unix seconds: where the clock began, and what has passed since."""
        return self._origin + self._elapsed

    def monotonic(self) -> float:
        """Return the seconds that have passed since the clock was made."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Return when the clock has moved by ``seconds``; 0 or less is a mere checkpoint.

        A sleeper that is cancelled is forgotten.
        """
        deadline = self._elapsed + seconds
        if not deadline > self._elapsed:
            await checkpoint()
            return
        sleeper = _Sleeper(deadline, next(self._arrivals))
        insort(self._sleepers, sleeper)
        self._stirs += 1
        try:
            await self._until_woken(sleeper)
        finally:
            self._stirs += 1
            if not sleeper.woken:
                self._sleepers.remove(sleeper)
            self._call_driver()

    async def advance(self, seconds: float) -> None:
        """Move the clock by ``seconds``, waking the sleepers whose time comes.

        They wake in the order of their deadlines, of equal ones in the order of their arrival.
        Each runs, and may sleep again and be woken again, before the next one wakes. Whoever
        could run when this is called runs first. If cancelled, the clock stays where it is.
        With ``auto_advance`` this is ``sleep``: time gets there by itself.

        Raises:
            InvalidValue: ``seconds`` is negative or not finite.
        """
        if not (math.isfinite(seconds) and seconds >= 0):
            raise InvalidValue("seconds", seconds, "a finite number of at least 0")
        if self._auto:
            await self.sleep(seconds)
            return
        target = self._elapsed + seconds
        await self._rest()
        while self._sleepers and self._sleepers[0].deadline <= target:
            self._wake_first()
            await self._rest()
        # Another task may have moved it further meanwhile.
        self._elapsed = max(self._elapsed, target)

    async def _until_woken(self, sleeper: _Sleeper) -> None:
        while not sleeper.woken:
            # There is no background task: one of the sleepers moves the time for all. Who
            # sleeps for ever has nothing to move it to.
            if self._auto and self._driver is None and sleeper.deadline < math.inf:
                self._driver = sleeper
                try:
                    await self._drive(sleeper)
                finally:
                    self._driver = None
            else:
                await sleeper.event.wait()
                if not sleeper.woken:
                    sleeper.event = anyio.Event()

    async def _drive(self, driver: _Sleeper) -> None:
        while not driver.woken:
            await self._rest(driver)
            if not driver.woken:
                self._wake_first()

    async def _rest(self, driver: _Sleeper | None = None) -> None:
        """Return when no sleeper has come or gone for so many turns, or ``driver`` is woken."""
        turns, seen = 0, self._stirs
        while turns < _TURNS and not (driver is not None and driver.woken):
            await checkpoint()
            turns = turns + 1 if seen == self._stirs else 0
            seen = self._stirs

    def _wake_first(self) -> None:
        first = self._sleepers.pop(0)
        self._elapsed = max(self._elapsed, first.deadline)
        first.woken = True
        first.event.set()

    def _call_driver(self) -> None:
        """Have the earliest sleeper move the time, if nobody does."""
        if self._auto and self._driver is None and self._sleepers:
            self._sleepers[0].event.set()
