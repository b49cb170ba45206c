"""The ends of servers that do not go as they should."""

from __future__ import annotations

import attrs
import pytest
from support.gateway import model, running_server
from support.lists import ListRunner

from gglib.bootstrap import SystemClock
from gglib.domain.ownership import Owner, OwnerKind
from gglib.domain.state import ServerState
from gglib.errors import AdapterError, StopFailed
from gglib.ports.context import EngineSet
from gglib.services.serving import RunningServer, ServingService
from gglib.testing import MockRunner, MockServerClient
from gglib.testing.contexts import RecordingSink
from gglib_adapters.catalog.memory import MemoryServerRegistry


class House:
    """A service over servers that run on paper."""

    def __init__(self, *server_ids: str) -> None:
        self.servers = [
            running_server(server_id, model(number, server_id), 80 + number)
            for number, server_id in enumerate(server_ids, 1)
        ]
        self.runner = ListRunner(*[server.handle for server in self.servers])
        self.registry = MemoryServerRegistry(*[server.record for server in self.servers])
        self.events = RecordingSink()
        self.service = ServingService(
            {"local": self.runner},
            "local",
            self.registry,
            EngineSet({}),
            MockServerClient(MockRunner()),
            clock=SystemClock(),
            events=self.events,
            owner=Owner(kind=OwnerKind.LIBRARY, pid=1, process_started_at=0.0, node="here"),
        )
        self.service._servers = {server.server_id: server for server in self.servers}

    @property
    def event_names(self) -> list[str]:
        """Return what was told."""
        return [event.name for event in self.events.events]


async def test_server_that_survives_keeps_its_row_as_failed() -> None:
    """The row is what leads to it later."""
    house = House("a")
    house.runner.immortal.add("a")
    with pytest.raises(StopFailed):
        await house.service.stop(house.servers[0])
    assert [record.state for record in await house.registry.list()] == [ServerState.FAILED]
    assert house.event_names == ["server.failed"]
    house.runner.immortal.clear()
    await house.service.stop(house.servers[0])
    assert (await house.registry.list(), house.runner.running) == ([], [])


async def test_one_that_survives_does_not_save_the_others() -> None:
    """All are stopped, and the failure is told."""
    house = House("a", "b", "c")
    house.runner.immortal.add("b")
    with pytest.raises(StopFailed, match="'b'"):
        await house.service.stop_all()
    assert [handle.server_id for handle in house.runner.running] == ["b"]
    assert [record.server_id for record in await house.registry.list()] == ["b"]


async def test_server_whose_spawn_was_not_recorded_is_found_and_stopped() -> None:
    """Its owner was killed between the two."""
    house = House("a", "b")
    record = attrs.evolve(house.servers[0].record, handle=None, state=ServerState.STARTING)
    await house.registry.put(record)
    await house.service.stop_record(record)
    assert [handle.server_id for handle in house.runner.running] == ["b"]
    assert house.event_names == ["server.stopped"]


@pytest.mark.parametrize("recorded", [True, False])
async def test_server_that_is_gone_is_stopped_well(recorded: bool) -> None:
    """Its row goes, whether or not its process was ever recorded."""
    house = House("a")
    house.runner.running.clear()
    record = house.servers[0].record
    if not recorded:
        record = attrs.evolve(record, handle=None)
    await house.service.stop_record(record)
    assert await house.registry.list() == []
    assert house.event_names == ["server.failed"]


async def test_server_of_a_runner_that_is_not_here_is_not_touched() -> None:
    """The runner is named."""
    house = House("a")
    record = attrs.evolve(house.servers[0].record, runner="moon")
    stranger: RunningServer = attrs.evolve(house.servers[0], record=record)
    with pytest.raises(AdapterError, match="'moon'"):
        await house.service.stop(stranger)
    assert house.runner.running
