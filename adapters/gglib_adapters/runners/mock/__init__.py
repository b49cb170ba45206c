"""Servers that exist on paper: for tests, with every promise of the port kept."""

from gglib_adapters.runners.mock.calls import MockCall
from gglib_adapters.runners.mock.clock import FakeClock
from gglib_adapters.runners.mock.engine_server import (
    EngineCondition,
    MockEngineServer,
    MockRequest,
)
from gglib_adapters.runners.mock.factory import open_mock_runner
from gglib_adapters.runners.mock.runner import MockRunner
from gglib_adapters.runners.mock.script import MockScript
from gglib_adapters.runners.mock.settings import MockRunnerSettings
from gglib_adapters.runners.mock.world import MockWorld

__all__ = [
    "EngineCondition",
    "FakeClock",
    "MockCall",
    "MockEngineServer",
    "MockRequest",
    "MockRunner",
    "MockRunnerSettings",
    "MockScript",
    "MockWorld",
    "open_mock_runner",
]
