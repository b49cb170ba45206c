"""Servers are known by who they are, by this runner and by the next."""

from __future__ import annotations

from pathlib import Path

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
