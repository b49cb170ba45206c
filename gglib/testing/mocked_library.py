"""The library over mocks: real services and routing; no process, socket, model file or database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gglib.given import GivenAdapters
from gglib.library import Library, hold_library
from gglib.logs import SilentSink
from gglib.ports.event_sink import EventSink
from gglib.settings import Settings
from gglib.testing.mock_parts import (
    MockDeviceInventory,
    MockEngine,
    MockModelSource,
    MockServerClient,
)
from gglib_adapters.catalog.memory import MemoryModelCatalog, MemoryServerRegistry
from gglib_adapters.catalog.memory_pulls import MemoryPullQueue
from gglib_adapters.runners.mock import MockRunner

__all__ = ["check_unused", "mock_adapters", "mock_library"]


def check_unused(runner: MockRunner) -> None:
    """Raise ``ValueError`` if servers of ``runner`` run: another library or gateway has it.

    Whoever opens on it next would stop them as orphans, having no record of them.
    """
    if runner.running:
        raise ValueError(
            "servers of this MockRunner run: a library or gateway has it; give each one its own"
        )


def mock_adapters(runner: MockRunner) -> GivenAdapters:
    """Return adapters that touch nothing outside this process, around ``runner``."""
    return GivenAdapters(
        runner=runner,
        engine=MockEngine(),
        catalog=MemoryModelCatalog(),
        registry=MemoryServerRegistry(),
        source=MockModelSource(),
        devices=MockDeviceInventory(),
        server_client=MockServerClient(runner),
        pull_queue=MemoryPullQueue(),
    )


@asynccontextmanager
async def mock_library(
    data_dir: Path, runner: MockRunner, *, events: EventSink | None = None
) -> AsyncIterator[Library]:
    """Open a library whose servers are ``runner``'s, on its clock, for the block.

    Any path is a model; neither the environment nor a configuration file is read.

    Raises:
        ValueError: another library or gateway has the runner.
    """
    check_unused(runner)
    async with hold_library(
        Settings(data_dir=data_dir),
        events=events or SilentSink(),
        clock=runner.clock,
        given=mock_adapters(runner),
    ) as library:
        yield library
