"""How the life of one server goes: a function of its script, its clock, and what was done to it."""

from __future__ import annotations

import math
import threading
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import attrs
from anyio.lowlevel import checkpoint

from gglib.domain.config import ServerConfig
from gglib.domain.health import ServerHealth
from gglib.ports.clock import Clock
from gglib_adapters.runners.mock.bell import Bell
from gglib_adapters.runners.mock.engine_server import EngineCondition
from gglib_adapters.runners.mock.script import MockScript

__all__ = ["Course"]

#: A moment has come when less than this is missing: sums of seconds are not exact.
_TICK_S = 1e-6

_TERMINATED = -15
_KILLED = -9


@attrs.frozen
class _End:
    at: float
    status: int
    lines: tuple[str, ...] = ()


class Course:
    """Begins when it is made. Nothing runs: its state is looked at when somebody asks.

    All but ``until`` is safe in any thread.
    """

    def __init__(self, script: MockScript, config: ServerConfig, clock: Clock) -> None:
        self.script = script
        self._clock = clock
        self._born = clock.monotonic()
        self.context_size = script.context_size or config.context_size
        self.slots_total = script.slots_total or config.parallel
        self._bell = Bell()
        self._lock = threading.Lock()
        self._said: list[str] = []
        self._health: ServerHealth | None = None
        self._last_check: float | None = None
        self._end: _End | None = None
        if script.crash_at_s is not None:
            at = self._born + script.crash_at_s
            self._end = _End(at, script.exit_status, script.crash_lines)

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._end is not None and self._left(self._end.at) <= _TICK_S

    @property
    def exit_status(self) -> int | None:
        """With what it ended; ``None`` while it runs."""
        return self._end.status if self._end is not None and self.ended else None

    @property
    def output(self) -> list[str]:
        """What it has printed."""
        last = self._end.lines if self._end is not None and self.ended else ()
        return [*self.script.lines, *self._said, *last]

    @property
    def condition(self) -> EngineCondition:
        """How its clients find it."""
        if self.ended:
            return EngineCondition.GONE
        if self._health is not None:
            return EngineCondition.READY if self._health.healthy else EngineCondition.UNHEALTHY
        if not self._has_come(self.script.load_s):
            return EngineCondition.LOADING
        for begin, end in self.script.unhealthy:
            if self._has_come(begin) and not self._has_come(end):
                return EngineCondition.UNHEALTHY
        return EngineCondition.READY

    def check(self) -> ServerHealth:
        """Return how it is now, if it runs, and remember a good answer's time."""
        health = self._health or self._scripted_health()
        if health.healthy:
            self._last_check = health.last_check
        return health

    def say(self, line: str) -> None:
        """Print a line."""
        self._said.append(line)
        self._bell.ring()

    def set_health(self, health: ServerHealth | None) -> None:
        """Answer every check so, until ``None``."""
        self._health = health

    def ask_to_stop(self, grace_s: float) -> float:
        """Begin a stop; return the moment at which whoever stops it may give up."""
        now = self._clock.monotonic()
        if self.script.survives_kill:
            return now + grace_s
        if self.script.ignores_stop or self.script.stop_delay_s > grace_s:
            self._end_by(_End(now + grace_s, _KILLED))
        else:
            self._end_by(_End(now + self.script.stop_delay_s, _TERMINATED))
        return math.inf

    def crash(self, status: int | None, lines: tuple[str, ...] | None) -> None:
        """End by itself, now; by default as its script says it does."""
        script = self.script
        status = script.exit_status if status is None else status
        lines = script.crash_lines if lines is None else lines
        self._end_by(_End(self._clock.monotonic(), status, lines))

    def kill(self) -> None:
        """End now, whatever its script says."""
        self._end_by(_End(self._clock.monotonic(), _KILLED))

    async def until(self, moment: float = math.inf, *, lines: int | None = None) -> None:
        """Return when it has ended, at ``moment``, or when it has printed more than ``lines``."""
        await checkpoint()
        while True:
            with self._bell.listening() as rung:
                end = math.inf if self._end is None else self._end.at
                left = self._left(min(moment, end))
                if left <= _TICK_S or (lines is not None and len(self.output) > lines):
                    return
                await _first_of(rung.wait, partial(self._clock.sleep, left))

    def _scripted_health(self) -> ServerHealth:
        condition, script = self.condition, self.script
        if condition is EngineCondition.LOADING:
            progress = 0.0
            if script.load_s < math.inf:
                progress = (self._clock.monotonic() - self._born) / script.load_s
            return ServerHealth.unhealthy("Loading model", load_progress=progress)
        if condition is EngineCondition.UNHEALTHY:
            message = "does not answer its health check"
            return ServerHealth.unhealthy(message, last_check=self._last_check)
        return ServerHealth.ok(
            last_check=self._clock.now(),
            latency_s=script.health_delay_s,
            context_size=self.context_size,
            slots_total=self.slots_total,
        )

    def _has_come(self, age: float) -> bool:
        return self._left(self._born + age) <= _TICK_S

    def _left(self, moment: float) -> float:
        return moment - self._clock.monotonic()

    def _end_by(self, end: _End) -> None:
        with self._lock:
            # Of several ends the first one comes.
            if self._end is None or end.at < self._end.at:
                self._end = end
        self._bell.ring()


async def _first_of(*calls: Callable[[], Awaitable[object]]) -> None:
    async with anyio.create_task_group() as racers:

        async def race(call: Callable[[], Awaitable[object]]) -> None:
            await call()
            racers.cancel_scope.cancel()

        for call in calls:
            racers.start_soon(race, call)
