"""Servers are known by who they are: (node, pid, process start time, server id), all of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest

from gglib.domain.handle import ProcessHandle
from gglib.domain.ids import new_server_id
from gglib.errors import NotRunning
from gglib.testing.contracts.process_runner.behaviour import Behaviour
from gglib.testing.contracts.process_runner.kit import RunnerKit, RunnerPromises
from gglib.testing.contracts.process_runner.patient import PatientRunner

__all__ = ["IdentityPromises"]

_IMPOSTORS: dict[str, Callable[[ProcessHandle], dict[str, Any]]] = {
    # What a registry row looks like whose pid was given to another process since.
    "reused pid": lambda handle: {
        "process_started_at": (handle.process_started_at or 1000.0) - 100.0
    },
    "other server id": lambda handle: {"server_id": new_server_id()},
    "other node": lambda handle: {"node": f"not-{handle.node}"},
}


class IdentityPromises(RunnerPromises):
    """A handle that differs from a running server's in one part of its identity is not that one."""

    @pytest.fixture(params=list(_IMPOSTORS))
    def disguise(self, request: pytest.FixtureRequest) -> Callable[[ProcessHandle], ProcessHandle]:
        """Return what turns a handle into one that merely resembles it."""
        changes = _IMPOSTORS[request.param]
        return lambda handle: attrs.evolve(handle, **changes(handle))

    async def test_impostor_is_not_running(
        self,
        kit: RunnerKit,
        runner: PatientRunner,
        disguise: Callable[[ProcessHandle], ProcessHandle],
    ) -> None:
        """The same pid is not the same process."""
        handle = await kit.start(runner)
        assert not await runner.is_running(disguise(handle)), (
            "is_running compares the whole identity, not the pid alone"
        )
        assert await runner.is_running(handle), "the real one is running"

    async def test_stopping_an_impostor_touches_nothing(
        self,
        kit: RunnerKit,
        runner: PatientRunner,
        disguise: Callable[[ProcessHandle], ProcessHandle],
    ) -> None:
        """NotRunning, and whoever has that pid now lives on."""
        handle = await kit.start(runner)
        with pytest.raises(NotRunning):
            await runner.stop(disguise(handle))
        assert await runner.is_running(handle), "a process that has the same pid is not touched"

    async def test_asking_after_an_impostor_raises_not_running(
        self,
        kit: RunnerKit,
        runner: PatientRunner,
        disguise: Callable[[ProcessHandle], ProcessHandle],
    ) -> None:
        """Its health, and its adoption."""
        handle = await kit.start(runner)
        await kit.until_healthy(runner, handle)
        asked: list[Callable[[ProcessHandle], Awaitable[object]]] = [runner.health, runner.adopt]
        for ask in asked:
            with pytest.raises(NotRunning):
                await ask(disguise(handle))

    async def test_output_of_an_impostor_is_nothing(
        self, kit: RunnerKit, runner: PatientRunner
    ) -> None:
        """Another server's id, all else alike; and a server that never ran."""
        handle = await kit.start(runner, Behaviour.TALKS)
        await kit.until_healthy(runner, handle)
        impostor = attrs.evolve(handle, server_id=new_server_id())
        unknown = attrs.evolve(impostor, model_name="never", pid=None, process_started_at=None)
        for nobody in (impostor, unknown):
            for follow in (False, True):
                lines = [line async for line in runner.logs(nobody, follow=follow)]
                assert lines == [], "logs of a server that never ran are nothing"

    async def test_waiting_for_an_impostor_returns_at_once(
        self,
        kit: RunnerKit,
        runner: PatientRunner,
        disguise: Callable[[ProcessHandle], ProcessHandle],
    ) -> None:
        """It is gone already."""
        handle = await kit.start(runner)
        with kit.patience("wait returns at once for a server that is gone"):
            await runner.wait(disguise(handle))
        assert await runner.is_running(handle), "the real one is running"
