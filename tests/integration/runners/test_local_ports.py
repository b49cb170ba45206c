"""The local runner's ports: chosen, raced for, and proven to be the server's own."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.servers import line_with

from gglib.domain.config import ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.errors import PortInUse
from gglib.ports.context import AdapterContext
from gglib.testing.contexts import make_context
from gglib.testing.contracts.process_runner.outside import stranger_on
from gglib.testing.stub_engine import StubEngine
from gglib_adapters.runners.local import open_local_runner


def context(data_dir: Path, engine: StubEngine, **settings: Any) -> AdapterContext:
    """Return what a local runner with that engine needs."""
    return make_context(data_dir, name="local", engines={"stub": engine}, settings=settings)


def config(**changes: Any) -> ServerConfig:
    """Return a configuration for the stub."""
    return ServerConfig(
        model_id=1, model_name="alpha", model_path="/none.gguf", engine="stub", **changes
    )


async def test_port_in_use_names_its_holder(data_dir: Path) -> None:
    """A port that was asked for and is taken is refused before anything starts."""
    engine = StubEngine()
    with stranger_on() as port:
        async with open_local_runner(context(data_dir, engine)) as runner:
            with pytest.raises(PortInUse, match=rf"pid {os.getpid()}") as caught:
                await runner.start(config(port=port))
    assert port == caught.value.port
    assert engine.ports == []


async def test_base_port_in_use_gives_the_next_free_one(data_dir: Path) -> None:
    """The search begins at ``base_port``, and never gives two starts the same port."""
    with stranger_on() as port:
        async with open_local_runner(context(data_dir, StubEngine(listen=False))) as runner:
            handles: list[ProcessHandle] = []

            async def start() -> None:
                handles.append(await runner.start(config(base_port=port)))

            async with anyio.create_task_group() as starts:
                for _ in range(3):
                    starts.start_soon(start)
            ports = [handle.port for handle in handles]
            assert len(set(ports)) == 3
            assert min(ports) > port
            for handle in handles:
                await runner.stop(handle)


async def test_healthy_answer_of_somebody_else_is_unhealthy(data_dir: Path) -> None:
    """An old process that answers on the server's port is found out, and named."""
    engine = StubEngine(listen=False)
    async with open_local_runner(context(data_dir, engine)) as runner:
        handle = await runner.start(config())
        with stranger_on(handle.port):
            health = await runner.health(handle)
        await runner.stop(handle)
    assert not health.healthy
    assert f"(pid {os.getpid()})" in (health.port_held_by or "")
    assert f"port {handle.port} is held by" in (health.message or "")


async def test_port_shared_with_somebody_else_is_unhealthy(data_dir: Path) -> None:
    """With SO_REUSEPORT two can listen: requests would go to either."""
    engine = StubEngine(share_port=True)
    async with open_local_runner(context(data_dir, engine)) as runner:
        handle = await runner.start(config())
        with stranger_on(handle.port, share=True):
            await line_with(runner, handle, "ready at")
            assert (await runner.health(handle)).port_held_by is not None
        assert (await runner.health(handle)).healthy
        await runner.stop(handle)


async def test_silent_listener_is_unhealthy_within_the_timeout(data_dir: Path) -> None:
    """A connection that is accepted and never answered does not hold up the check."""
    engine = StubEngine(listen=False)
    async with open_local_runner(context(data_dir, engine, health_timeout_s=0.1)) as runner:
        handle = await runner.start(config())
        with closing(socket.create_server(("127.0.0.1", handle.port))), anyio.fail_after(1.5):
            health = await runner.health(handle)
        await runner.stop(handle)
    assert (health.healthy, health.message) == (False, "no answer within 0.1 s")


async def test_port_of_an_ended_server_is_taken_while_somebody_listens(data_dir: Path) -> None:
    """That is what tells a lost race from another failure."""
    async with open_local_runner(context(data_dir, StubEngine(exit_status=1))) as runner:
        handle = await runner.start(config())
        await runner.wait(handle)
        with stranger_on(handle.port):
            assert await runner.port_is_taken(handle)
        assert not await runner.port_is_taken(handle)
