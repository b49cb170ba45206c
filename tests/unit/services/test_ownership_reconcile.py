"""Reconciliation touches what it may, and one failure does not save the others."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from support.lists import ListRunner

from gglib.bootstrap import SystemClock
from gglib.domain.config import ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.domain.ids import new_server_id
from gglib.domain.ownership import Asker, Owner, OwnerKind, ServerRecord
from gglib.domain.state import ServerState
from gglib.ports.process_table import ProcessIdentity, ProcessTable
from gglib.services.ownership import Reconciliation, disputed_process, reconcile
from gglib.testing.contexts import RecordingSink
from gglib_adapters.catalog.memory import MemoryServerRegistry

NODE = "here"
DEAD, ALIVE = 1, 2


class TwoProcesses(ProcessTable):
    """A machine on which pid ``ALIVE`` lives and ``DEAD`` does not."""

    def identity(self) -> ProcessIdentity:
        return ProcessIdentity(NODE, 3, 0.0)

    def is_alive(self, node: str, pid: int, process_started_at: float) -> bool:
        return pid == ALIVE

    def holder_of_port(self, port: int) -> str | None:
        return None


@pytest.fixture
def anyio_backend() -> str:
    """Nothing here depends on the loop."""
    return "asyncio"


def server(*, owner: int | Owner = DEAD, node: str = NODE, **changes: Any) -> ServerRecord:
    """Return a ready server's record."""
    server_id = new_server_id()
    if isinstance(owner, int):
        owner = Owner(kind=OwnerKind.LIBRARY, pid=owner, process_started_at=0.0, node=node)
    handle = ProcessHandle(
        model_id=1,
        model_name="alpha",
        pid=7,
        port=9000,
        started_at=1.0,
        server_id=server_id,
        runner="local",
        node=node,
        base_url="http://127.0.0.1:9000",
        process_started_at=1.0,
    )
    fields: dict[str, Any] = {
        "server_id": server_id,
        "owner": owner,
        "config": ServerConfig(model_id=1, model_name="alpha", model_path="/a.gguf"),
        "engine": "stub",
        "runner": "local",
        "state": ServerState.READY,
        "created_at": 1.0,
        "handle": handle,
    }
    return ServerRecord(**fields | changes)


def handle_of(record: ServerRecord) -> ProcessHandle:
    """Return the record's handle."""
    assert record.handle is not None
    return record.handle


async def reconciled(
    registry: MemoryServerRegistry,
    runner: ListRunner,
    events: RecordingSink | None = None,
    asker: Asker = Asker.OTHER,
) -> Reconciliation:
    """Reconcile the two."""
    return await reconcile(
        registry,
        {"local": runner},
        processes=TwoProcesses(),
        events=events or RecordingSink(),
        clock=SystemClock(),
        asker=asker,
    )


async def test_orphan_is_stopped_and_told_of() -> None:
    """Its process, its row, and one event."""
    orphan = server()
    registry, runner, events = (
        MemoryServerRegistry(orphan),
        ListRunner(handle_of(orphan)),
        RecordingSink(),
    )
    done = await reconciled(registry, runner, events)
    assert Reconciliation(stopped=(orphan.server_id,)) == done
    assert (runner.running, await registry.list()) == ([], [])
    assert [event.name for event in events.events] == ["server.orphan_stopped"]


async def test_row_without_a_process_is_forgotten() -> None:
    """Nothing is stopped and nothing is told."""
    gone = server()
    registry, events = MemoryServerRegistry(gone), RecordingSink()
    done = await reconciled(registry, ListRunner(), events)
    assert Reconciliation(forgotten=(gone.server_id,)) == done
    assert (await registry.list(), events.events) == ([], [])


async def test_server_of_a_living_owner_is_left() -> None:
    """Whatever its state."""
    mine = server(owner=ALIVE)
    starting = server(owner=ALIVE, handle=None, state=ServerState.STARTING)
    registry, runner = MemoryServerRegistry(mine, starting), ListRunner(handle_of(mine))
    done = await reconciled(registry, runner)
    assert {mine.server_id, starting.server_id} == set(done.left)
    assert len(await registry.list()) == 2


async def test_rows_of_other_machines_and_unknown_runners_are_not_touched() -> None:
    """Nothing here can tell what runs there."""
    elsewhere, by_ssh = server(node="there"), server(runner="ssh")
    registry = MemoryServerRegistry(elsewhere, by_ssh)
    assert Reconciliation() == await reconciled(registry, ListRunner())
    assert len(await registry.list()) == 2


async def test_orphan_that_survives_keeps_its_row_and_saves_no_other() -> None:
    """The failure is reported; the next orphan is stopped all the same."""
    immortal, mortal = server(), server()
    runner = ListRunner(handle_of(immortal), handle_of(mortal))
    runner.immortal = {immortal.server_id}
    registry = MemoryServerRegistry(immortal, mortal)
    done = await reconciled(registry, runner)
    assert ((immortal.server_id,), (mortal.server_id,)) == (done.failed, done.stopped)
    assert [immortal.server_id] == [record.server_id for record in await registry.list()]


#: When the process that is found began; the record says 1.0.
OTHER_TIME = 5000.0


@pytest.mark.parametrize("kind", OwnerKind)
@pytest.mark.parametrize("state", ServerState)
@pytest.mark.parametrize("asker", Asker)
async def test_server_that_began_at_another_time_than_on_record_is_left_and_told_of(
    kind: OwnerKind, state: ServerState, asker: Asker
) -> None:
    """By its pid and id it is ours, by its start time a stranger: a person decides."""
    owner = Owner(kind=kind, pid=DEAD, process_started_at=0.0, node=NODE)
    disputed = server(owner=owner, state=state)
    running = attrs.evolve(handle_of(disputed), process_started_at=OTHER_TIME)
    registry, runner, events = MemoryServerRegistry(disputed), ListRunner(running), RecordingSink()
    for _ in range(2):
        done = await reconciled(registry, runner, events, asker)
        assert Reconciliation(left=(disputed.server_id,)) == done
    assert (runner.running, await registry.list()) == ([running], [disputed])
    assert events.names == ["server.orphan_left"] * 2
    assert (await disputed_process(disputed, runner)) == running


async def test_pid_that_a_stranger_has_by_now_leads_nowhere() -> None:
    """The row goes; the process, which bears no id of ours, is not even looked at."""
    gone, mine = server(), server(owner=ALIVE)
    stranger = attrs.evolve(handle_of(mine), process_started_at=OTHER_TIME)
    registry, runner = MemoryServerRegistry(gone, mine), ListRunner(stranger)
    done = await reconciled(registry, runner)
    assert (done.forgotten, done.stopped) == ((gone.server_id,), ())
    assert runner.running == [stranger]
    assert await disputed_process(gone, runner) is None


async def test_remains_of_a_dead_server_are_stopped() -> None:
    """They bear its id, under pids of their own."""
    dead = server()
    remains = attrs.evolve(handle_of(dead), pid=8, process_started_at=OTHER_TIME)
    registry, runner = MemoryServerRegistry(dead), ListRunner(remains)
    assert Reconciliation(stopped=(dead.server_id,)) == await reconciled(registry, runner)
    assert (runner.running, await registry.list()) == ([], [])


async def test_spawn_that_was_never_recorded_is_found_by_its_id() -> None:
    """The intent is on record; the process carries the id."""
    full = server()
    intent = server(server_id=full.server_id, handle=None, state=ServerState.STARTING)
    registry, runner = MemoryServerRegistry(intent), ListRunner(handle_of(full))
    assert Reconciliation(stopped=(full.server_id,)) == await reconciled(registry, runner)
    assert (runner.running, await registry.list()) == ([], [])


async def test_server_started_meanwhile_by_another_process_is_left() -> None:
    """Its row appears after the rows were read: it is looked for once more."""
    newcomer = server(owner=ALIVE)

    class LateRegistry(MemoryServerRegistry):
        async def list(self) -> list[ServerRecord]:
            return []

    runner = ListRunner(handle_of(newcomer))
    assert Reconciliation() == await reconciled(LateRegistry(newcomer), runner)
    assert len(runner.running) == 1


class RunnerThatFails(ListRunner):
    """A stranger's runner with a bug, in what it is asked first, or in what it is asked then."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.method = method

    async def list_running(self) -> list[ProcessHandle]:
        if self.method == "list_running":
            raise KeyError("servers")
        if self.method == "none":
            return None  # type: ignore[return-value]
        if self.method == "strange":
            return ["a text"]  # type: ignore[list-item]
        return []

    async def is_running(self, handle: ProcessHandle) -> bool:
        raise RuntimeError("who knows")


@pytest.mark.parametrize("method", ["list_running", "none", "strange", "is_running"])
async def test_runner_that_fails_does_not_save_the_orphans_of_another(method: str) -> None:
    """Its own rows are not touched, and it is named."""
    orphan, stranger = server(), server(runner="sick")
    registry = MemoryServerRegistry(orphan, stranger)
    local = ListRunner(handle_of(orphan))
    events = RecordingSink()

    done = await reconcile(
        registry,
        {"sick": RunnerThatFails(method), "local": local},
        processes=TwoProcesses(),
        events=events,
        clock=SystemClock(),
    )

    assert done.stopped == (orphan.server_id,)
    assert await registry.list() == [stranger]
    assert events.names == ["adapter.failed", "server.orphan_stopped"]
