"""The serving service over real processes and a real registry."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from contextlib import ExitStack, closing
from pathlib import Path

import anyio
import httpx
import pytest
from support.servers import lives, model_of, open_world, port_answers, processes_of

from gglib.domain.ownership import OwnerKind
from gglib.domain.state import ServerState
from gglib.errors import ModelFileMissing, PortInUse, StartFailed, StartTimeout
from gglib.testing.stub_engine import StubEngine


async def test_started_server_is_ready_on_record_and_reached_with_its_key(data_dir: Path) -> None:
    """The row is ready, the key works, and the stored configuration does not hold it."""
    async with open_world(data_dir, StubEngine(takes_key=True)) as world:
        serving = world.serving()
        server = await serving.start(model_of(data_dir), overrides={"context_size": 2048})
        assert server.api_key is not None
        async with httpx.AsyncClient(base_url=server.base_url, trust_env=False) as client:
            headers = {"authorization": f"Bearer {server.api_key}"}
            assert (await client.get("/v1/models")).status_code == 401
            assert (await client.get("/v1/models", headers=headers)).status_code == 200
        record = await world.registry.get(server.server_id)
        assert record is not None
        assert (ServerState.READY, server.handle) == (record.state, record.handle)
        assert (server.api_key, 2048) == (record.api_key, record.config.context_size)
        assert record.config.environment == {}
        assert server.api_key not in repr(server)
        assert (server,) == serving.servers

        await serving.stop(server)

        assert await world.registry.list() == []
        assert not port_answers(server.handle.port)
        assert not serving.servers
        assert world.event_names == ["server.started", "server.ready", "server.stopped"]


async def test_server_is_asked_with_its_key(data_dir: Path) -> None:
    """When it starts, and when it is adopted."""
    props = {"total_slots": 3, "default_generation_settings": {"n_ctx": 512}}
    async with open_world(data_dir, StubEngine(takes_key=True, props=props)) as world:
        model = model_of(data_dir)
        server = await world.serving(OwnerKind.GATEWAY).start(model)
        assert (server.slots_total, server.context_size) == (3, 512)
        adopting = world.serving(OwnerKind.GATEWAY)
        adopted = await adopting.adopt(server.record, model)
        assert adopted is not None
        assert (adopted.slots_total, adopted.context_size) == (3, 512)
        await adopting.stop(adopted)


async def test_key_that_the_user_set_is_kept(data_dir: Path) -> None:
    """A user's own key in the environment is the one the server wants."""
    async with open_world(data_dir, StubEngine(takes_key=True)) as world:
        serving = world.serving()
        overrides = {"environment": {"STUB_API_KEY": "mine"}}
        server = await serving.start(model_of(data_dir), overrides=overrides)
        assert server.api_key == "mine"
        await serving.stop(server)


async def test_server_that_dies_while_starting_fails_the_start(data_dir: Path) -> None:
    """The error has its status and last lines; neither row nor process is left."""
    lines = [f"line {number}" for number in range(30)]
    engine = StubEngine(exit_status=7, lines=lines, children=["session"])
    async with open_world(data_dir, engine) as world:
        with pytest.raises(StartFailed) as caught:
            await world.serving().start(model_of(data_dir))
        assert caught.value.exit_status == 7
        assert len(caught.value.log_tail) == 20
        assert caught.value.log_tail[-2] == "line 29"
        assert caught.value.log_tail[-1].startswith("child ")
        assert processes_of(data_dir) == []
        assert await world.registry.list() == []
        assert world.event_names == ["server.started", "server.failed"]


async def test_server_that_is_never_ready_is_stopped_before_the_error(data_dir: Path) -> None:
    """At ``StartTimeout`` the process is gone, and so is its row."""
    async with open_world(data_dir, StubEngine(listen=False)) as world:
        with pytest.raises(StartTimeout):
            await world.serving(start_timeout_s=0.3).start(model_of(data_dir))
        assert processes_of(data_dir) == []
        assert await world.registry.list() == []


@pytest.mark.parametrize("point", ["intent", "recorded starting", "checked", "recorded ready"])
async def test_start_cancelled_at_any_point_leaves_nothing(data_dir: Path, point: str) -> None:
    """Whatever moment the cancellation chooses, neither row nor process is left."""
    reached: list[str] = []
    async with open_world(data_dir, StubEngine(listen=point == "recorded ready")) as world:
        with anyio.CancelScope() as scope:

            async def at(where: str) -> None:
                if where == point and not reached:
                    reached.append(where)
                    scope.cancel()
                    await anyio.sleep_forever()

            await world.serving(at=at).start(model_of(data_dir))
        assert [point] == reached
        assert scope.cancelled_caught
        assert processes_of(data_dir) == []
        assert await world.registry.list() == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("point", ["intent", "checked"])
async def test_start_cancelled_by_asyncio_itself_leaves_nothing(data_dir: Path, point: str) -> None:
    """A plain ``Task.cancel``, which no anyio scope sees, is as safe."""
    reached = asyncio.Event()

    async def at(where: str) -> None:
        if where == point:
            reached.set()

    async with open_world(data_dir, StubEngine(listen=False)) as world:
        task = asyncio.create_task(world.serving(at=at).start(model_of(data_dir)))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert processes_of(data_dir) == []
        assert await world.registry.list() == []


async def test_lost_race_for_a_port_is_run_again(data_dir: Path) -> None:
    """An engine whose port was taken under its nose gets another one."""
    engine = StubEngine()
    with ExitStack() as thieves:

        def steal(port: int) -> None:
            if len(engine.ports) <= 2:
                thieves.enter_context(closing(socket.create_server(("127.0.0.1", port))))

        engine.before_spawn = steal
        async with open_world(data_dir, engine) as world:
            serving = world.serving()
            server = await serving.start(model_of(data_dir))
            assert len(engine.ports) == 3
            assert server.handle.port == engine.ports[2]
            await serving.stop(server)
            assert await world.registry.list() == []


async def test_race_lost_four_times_fails_the_start(data_dir: Path) -> None:
    """After three more tries the engine's own words are the error."""
    engine = StubEngine()
    with ExitStack() as thieves:

        def steal(port: int) -> None:
            thieves.enter_context(closing(socket.create_server(("127.0.0.1", port))))

        engine.before_spawn = steal
        async with open_world(data_dir, engine) as world:
            with pytest.raises(StartFailed, match="bind"):
                await world.serving().start(model_of(data_dir))
            assert await world.registry.list() == []
    assert len(engine.ports) == 4


async def test_port_taken_from_a_server_that_asked_for_it_fails_the_start(data_dir: Path) -> None:
    """A port that was asked for is never replaced by another."""
    engine = StubEngine()
    with closing(socket.create_server(("127.0.0.1", 0))) as holder:
        port = holder.getsockname()[1]
        async with open_world(data_dir, engine) as world:
            with pytest.raises(PortInUse, match=rf"pid {os.getpid()}"):
                await world.serving().start(model_of(data_dir), overrides={"port": port})
            assert await world.registry.list() == []


async def test_missing_model_file_starts_nothing(data_dir: Path) -> None:
    """The file is looked for before anything is written or started."""
    engine = StubEngine()
    async with open_world(data_dir, engine) as world:
        model = model_of(data_dir)
        model.path.unlink()
        with pytest.raises(ModelFileMissing):
            await world.serving().start(model)
    assert engine.ports == []


async def test_concurrent_and_repeated_stops_tell_of_one_end(data_dir: Path) -> None:
    """Stopping is idempotent here, and one stop is one event."""
    async with open_world(data_dir, StubEngine()) as world:
        serving = world.serving()
        server = await serving.start(model_of(data_dir))
        async with anyio.create_task_group() as stops:
            stops.start_soon(serving.stop, server)
            stops.start_soon(serving.stop, server)
        await serving.stop(server)
        assert world.event_names.count("server.stopped") == 1
        assert await world.registry.list() == []


async def test_server_that_dies_is_noticed_and_its_row_goes_with_stop(data_dir: Path) -> None:
    """``wait_gone`` tells the status at once; ``stop`` of it is no error."""
    async with open_world(data_dir, StubEngine()) as world:
        serving = world.serving()
        server = await serving.start(model_of(data_dir))
        os.kill(server.handle.pid or 0, signal.SIGKILL)
        with anyio.fail_after(5):
            assert await serving.wait_gone(server) == -signal.SIGKILL
        await serving.stop(server)
        assert await world.registry.list() == []
        assert world.event_names[-1] == "server.failed"


async def test_stop_all_ends_every_server(data_dir: Path) -> None:
    """All servers of the service are gone when it returns."""
    async with open_world(data_dir, StubEngine()) as world:
        serving = world.serving()
        for name in ("alpha", "beta", "gamma"):
            await serving.start(model_of(data_dir, name))
        assert len(serving.servers) == 3
        await serving.stop_all()
        assert processes_of(data_dir) == []
        assert await world.registry.list() == []


async def test_server_of_another_service_is_stopped_by_its_record(data_dir: Path) -> None:
    """A command stops what an earlier command started, from the registry alone."""
    async with open_world(data_dir, StubEngine()) as world:
        server = await world.serving().start(model_of(data_dir))
        (record,) = await world.registry.list()
        await world.serving().stop_record(record)
        assert not lives(server.handle.pid or 0)
        assert await world.registry.list() == []


async def test_readiness_is_noticed_soon_after_it(data_dir: Path) -> None:
    """From the engine's own moment of readiness to ours: far below the old half second."""
    async with open_world(data_dir, StubEngine(load_s=0.2)) as world:
        serving = world.serving()
        server = await serving.start(model_of(data_dir))
        noticed_at = time.time()
        ready_at = None
        async for line in world.runner.logs(server.handle):
            if line.startswith("ready at"):
                ready_at = float(line.split()[-1])
        assert ready_at is not None
        assert noticed_at - ready_at < 0.25
        await serving.stop(server)
