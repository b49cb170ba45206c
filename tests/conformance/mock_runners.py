"""The contract of runners, set up for the mock: scripts in place of processes."""

from __future__ import annotations

import math

import pytest

from gglib.domain.config import ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.errors import StartFailed
from gglib.ports.clock import Clock
from gglib.ports.process_runner import ProcessRunner
from gglib.testing import FakeClock, MockRunner, MockScript
from gglib.testing.contracts.process_runner import (
    COMPLAINTS,
    LAST_WORDS,
    OUTPUT,
    Behaviour,
    OpenRunner,
    RunnerKit,
)
from gglib.testing.contracts.process_runner.kit import RunnerPromises
from gglib_adapters.runners.mock import open_mock_runner

__all__ = ["OnPaper"]

#: A start takes a moment, so that it can be cancelled.
_MOMENT_S = 0.001

SCRIPTS = {
    Behaviour.READY: MockScript(start_delay_s=_MOMENT_S),
    Behaviour.LOADS: MockScript(load_s=math.inf),
    Behaviour.SILENT: MockScript(load_s=math.inf),
    Behaviour.DIES: MockScript(lines=LAST_WORDS, crash_at_s=0.0, exit_status=3),
    Behaviour.DEAF: MockScript(ignores_stop=True),
    Behaviour.TALKS: MockScript(lines=OUTPUT),
    Behaviour.COMPLAINS: MockScript(lines=(*OUTPUT, *COMPLAINTS)),
    Behaviour.IMPOSSIBLE: MockScript(start_error=StartFailed("alpha", None, (), "no program")),
}


class OnPaper(RunnerPromises):
    """Any runner around a mock: ``mock_of`` tells where the mock is."""

    has_processes = False
    has_ports = False
    knows_files = False

    @pytest.fixture
    def open_runner(self) -> OpenRunner:
        """Open the mock."""
        return open_mock_runner

    @pytest.fixture
    def clock(self) -> Clock:
        """Return a clock that leaps."""
        return FakeClock(auto_advance=True)

    def mock_of(self, runner: ProcessRunner) -> MockRunner:
        """Return the mock within ``runner``."""
        assert isinstance(runner, MockRunner)
        return runner

    def prepare(
        self, kit: RunnerKit, runner: ProcessRunner, config: ServerConfig, behaviour: Behaviour
    ) -> None:
        """Script the next start."""
        del kit
        self.mock_of(runner).script(config.model_name, SCRIPTS[behaviour])

    async def say(
        self, kit: RunnerKit, runner: ProcessRunner, handle: ProcessHandle, line: str
    ) -> None:
        """Have the mock say it."""
        del kit
        self.mock_of(runner).say(handle, line)
