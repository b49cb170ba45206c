"""kill -9 of a server's owner, at each step of a start: the next start finds what it left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from support.servers import World, model_of, open_world, processes_of

from gglib.domain.ownership import Asker, OwnerKind
from gglib.domain.state import ServerState
from gglib.services.ownership import Reconciliation, reconcile
from gglib.testing.stub_engine import StubEngine

_TESTS = Path(__file__).parents[2]


@pytest.fixture
def anyio_backend() -> str:
    """One loop is enough: the owner is another process anyway."""
    return "asyncio"


def kill_owner_at(data_dir: Path, kind: str, point: str, **options: Any) -> None:
    """Run an owner that starts a server; kill it when it has come to ``point``."""
    arguments = [str(data_dir), kind, point, json.dumps(options)]
    with subprocess.Popen(
        [sys.executable, "-m", "support.owner", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(_TESTS)},
    ) as owner:
        assert owner.stdout is not None
        try:
            assert f"at {point}\n" == owner.stdout.readline()
        finally:
            owner.kill()


async def after_death(data_dir: Path, kind: str, point: str, **options: Any) -> None:
    """Kill an owner without blocking the loop."""
    with anyio.fail_after(30):
        await anyio.to_thread.run_sync(lambda: kill_owner_at(data_dir, kind, point, **options))


async def reconciled(world: World, asker: Asker = Asker.OTHER) -> Reconciliation:
    """Do what the next start does."""
    return await reconcile(
        world.registry,
        {"local": world.runner},
        processes=world.processes,
        events=world.events,
        clock=world.clock,
        asker=asker,
    )


@pytest.mark.parametrize(
    ("kind", "point", "servers"),
    [
        ("library", "intent", 0),
        ("library", "spawned", 1),
        ("gateway", "recorded starting", 1),
        ("library", "checked", 1),
        ("library", "ready", 1),
    ],
)
async def test_owner_killed_during_a_start_leaves_nothing_unfound(
    data_dir: Path, kind: str, point: str, servers: int
) -> None:
    """The row leads to the process, or the process to its row; both are gone afterwards."""
    await after_death(data_dir, kind, point)
    assert servers == len(processes_of(data_dir))
    async with open_world(data_dir, StubEngine()) as world:
        assert len(await world.registry.list()) == 1
        done = await reconciled(world)
        assert (servers, 1 - servers) == (len(done.stopped), len(done.forgotten))
        assert await world.registry.list() == []
        assert processes_of(data_dir) == []
        assert ["server.orphan_stopped"] * servers == world.event_names


@pytest.mark.parametrize("kind", ["gateway", "standalone"])
async def test_ready_server_of_a_killed_owner_is_offered_to_a_gateway_alone(
    data_dir: Path, kind: str
) -> None:
    """Others leave it; a gateway adopts it by identity, unless the process is another one."""
    await after_death(data_dir, kind, "ready")
    async with open_world(data_dir, StubEngine()) as world:
        (record,) = await world.registry.list()
        assert (await reconciled(world)).left == (record.server_id,)
        offered = await reconciled(world, Asker.ADOPTING_GATEWAY)
        assert offered.adoptable == (record,)
        model = model_of(data_dir)
        server = await world.serving(OwnerKind.GATEWAY).adopt(record, model)
        assert server is not None
        assert server.by_hand == (kind == "standalone")
        assert server.handle == record.handle
        assert "server.adopted" in world.event_names

        assert record.handle is not None
        await world.runner.stop(record.handle)


async def test_standalone_server_outlives_its_command(data_dir: Path) -> None:
    """``gglib start`` ends and its server is left, found, and can be stopped later."""
    await after_death(data_dir, "standalone", "ready")
    async with open_world(data_dir, StubEngine()) as world:
        (record,) = await world.registry.list()
        assert (record.server_id,) == (await reconciled(world)).left
        assert ServerState.READY is record.state
        assert record.handle is not None
        assert [record.handle] == await world.runner.list_running()
        assert (await world.runner.health(record.handle)).healthy
        await world.serving().stop_record(record)
        assert processes_of(data_dir) == []


async def test_standalone_server_half_started_is_stopped(data_dir: Path) -> None:
    """Nobody waits for it to become ready any more."""
    await after_death(data_dir, "standalone", "recorded starting", listen=False)
    async with open_world(data_dir, StubEngine()) as world:
        assert len((await reconciled(world)).stopped) == 1
        assert processes_of(data_dir) == []


async def test_leaderless_remains_of_an_orphan_are_stopped(data_dir: Path) -> None:
    """The server itself has died too; what it started is found by the id it carries."""
    await after_death(data_dir, "library", "ready", children=["group", "orphan"])
    async with open_world(data_dir, StubEngine()) as world:
        (record,) = await world.registry.list()
        assert record.handle is not None
        os.kill(record.handle.pid or 0, signal.SIGKILL)
        await world.runner.wait(record.handle)
        assert len(processes_of(data_dir)) == 2
        await reconciled(world)
        assert await world.registry.list() == []
        assert processes_of(data_dir) == []


async def test_server_without_a_row_is_stopped(data_dir: Path) -> None:
    """A registry that was lost does not hide what runs."""
    await after_death(data_dir, "library", "ready")
    for file in data_dir.glob("gglib.db*"):
        file.unlink()
    async with open_world(data_dir, StubEngine()) as world:
        assert await world.registry.list() == []
        assert len((await reconciled(world)).stopped) == 1
        assert processes_of(data_dir) == []


async def test_servers_of_a_living_owner_are_left(data_dir: Path) -> None:
    """Reconciliation beside a running gglib touches nothing of it."""
    async with open_world(data_dir, StubEngine()) as world:
        serving = world.serving()
        server = await serving.start(model_of(data_dir))
        assert (server.server_id,) == (await reconciled(world)).left
        assert (await world.runner.health(server.handle)).healthy
        await serving.stop(server)
