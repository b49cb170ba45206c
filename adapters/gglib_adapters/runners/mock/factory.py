"""Opening the mock runner by configuration, over servers that an earlier opening left."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import attrs

from gglib.ports.context import AdapterContext
from gglib_adapters.runners.mock.runner import MockRunner
from gglib_adapters.runners.mock.script import MockScript
from gglib_adapters.runners.mock.settings import MockRunnerSettings
from gglib_adapters.runners.mock.world import MockWorld
from gglib_adapters.runners.section import read_section

__all__ = ["open_mock_runner"]


@attrs.define(eq=False)
class _Place:
    world: MockWorld = attrs.field(factory=MockWorld)
    openings: int = 0


_PLACES: dict[tuple[Path, str], _Place] = {}
_LOCK = threading.Lock()


@asynccontextmanager
async def open_mock_runner(context: AdapterContext) -> AsyncIterator[MockRunner]:
    """Open a mock runner; see ``MockRunnerSettings`` for its settings.

    Its servers, with their sockets, outlive it: the next opening in this process over the same
    data directory and name finds them, and may stop them. Once nobody has it open and none
    runs, their output is forgotten. They end with the process.

    Raises:
        ConfigurationError: a setting is unknown or wrong.
    """
    settings = read_section(MockRunnerSettings, context)
    script = MockScript(load_s=settings.load_s)
    if settings.reply is not None:
        script = attrs.evolve(script, reply=settings.reply)
    with _world_of(context) as world:
        yield MockRunner(
            script,
            clock=context.clock,
            sockets=settings.sockets,
            stop_grace_s=settings.stop_grace_s,
            name=context.name,
            world=world,
        )


@contextmanager
def _world_of(context: AdapterContext) -> Iterator[MockWorld]:
    key = (context.data_dir.absolute(), context.name)
    with _LOCK:
        place = _PLACES.setdefault(key, _Place())
        place.openings += 1
    try:
        yield place.world
    finally:
        with _LOCK:
            place.openings -= 1
            if not place.openings and not place.world.running():
                del _PLACES[key]
