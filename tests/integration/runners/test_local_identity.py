"""Servers are known by who they are, by this runner and by the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import psutil
import pytest
from support.servers import line_with, lives, local_context, stub_config, until_ready

from gglib.errors import NotRunning
from gglib.testing.stub_engine import StubEngine
from gglib_adapters.runners.local import open_local_runner


async def test_closed_runner_leaves_servers_that_the_next_one_finds(data_dir: Path) -> None:
    """Another runner over the same directory knows, adopts and stops them."""
    async with open_local_runner(local_context(data_dir, StubEngine())) as first:
        handle = await first.start(stub_config())
        await until_ready(first, handle)
    assert lives(handle.pid or 0)

    async with open_local_runner(local_context(data_dir, StubEngine())) as second:
        assert [handle] == await second.list_running()
        await second.adopt(handle)
        assert (await second.health(handle)).healthy
        await second.stop(handle)
        assert await second.list_running() == []
        with pytest.raises(NotRunning):
            await second.adopt(handle)
    assert not psutil.pid_exists(handle.pid or 0), "a zombie is left"


async def test_servers_of_another_data_directory_are_not_listed(
    data_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two gglibs on one machine do not see each other's servers."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    async with (
        open_local_runner(local_context(data_dir, StubEngine())) as here,
        open_local_runner(local_context(elsewhere, StubEngine())) as there,
    ):
        handle = await here.start(stub_config())
        assert await there.list_running() == []
        await here.stop(handle)


@pytest.mark.parametrize(
    "change",
    [
        {"process_started_at": 1_000_000_000.0},
        {"server_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV"},
        {"node": "another-machine"},
        {"pid": None},
    ],
    ids=["start-time", "server-id", "node", "no-pid"],
)
async def test_process_with_another_identity_is_left_alone(
    data_dir: Path, change: dict[str, Any]
) -> None:
    """The pid alone is nobody: such a handle is not running, and stop touches nothing."""
    async with open_local_runner(local_context(data_dir, StubEngine())) as runner:
        handle = await runner.start(stub_config())
        stranger = attrs.evolve(handle, **change)
        assert not await runner.is_running(stranger)
        with pytest.raises(NotRunning):
            await runner.stop(stranger)
        with pytest.raises(NotRunning):
            await runner.health(stranger)
        assert await runner.wait(stranger) is None
        assert await runner.is_running(handle)
        await runner.stop(handle)


async def test_environment_carries_identity_and_no_secret_of_ours(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child has its id, its configuration's variables, and none of gglib's own."""
    monkeypatch.setenv("GGLIB_GATEWAY__API_KEYS", "sk-secret")
    monkeypatch.setenv("ORDINARY", "inherited")
    async with open_local_runner(local_context(data_dir, StubEngine())) as runner:
        handle = await runner.start(stub_config(environment={"MINE": "1"}))
        await line_with(runner, handle, "ready at")
        environment = psutil.Process(handle.pid).environ()
        assert handle.server_id == environment["GGLIB_SERVER_ID"]
        assert (environment["MINE"], environment["ORDINARY"]) == ("1", "inherited")
        assert "GGLIB_GATEWAY__API_KEYS" not in environment
        await runner.stop(handle)
