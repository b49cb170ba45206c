"""Models on other machines are held to what those have, and never to what this one has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
from support.ledgers import PaperDevices, PaperProcesses, paper_ledger, running

from gglib.domain.device import Device
from gglib.domain.events import AdapterFailed
from gglib.domain.handle import ProcessHandle
from gglib.domain.model import Model, ModelDefaults
from gglib.domain.server_memory import ServerMemory
from gglib.errors import AdapterError, ConfigurationError, NodeUnreachable
from gglib.ports.process_runner import ProcessRunner
from gglib.services import machines
from gglib.services.memory_ledger import MemoryLedger
from gglib.services.routing.planners.base import Held
from gglib.services.routing.planners.memory import MemoryPlanner
from gglib.services.routing.terms import ModelTerms
from gglib.services.serving import RunningServer
from gglib.testing import MockRunner
from gglib.testing.contexts import RecordingSink
from gglib.testing.mock_parts import MockModelSource
from gglib_adapters.catalog.memory import MemoryModelCatalog

pytestmark = pytest.mark.anyio
MIB, GIB = 2**20, 2**30
AWAY = NodeUnreachable("box", "connect", "no answer within 10 s", "does `ssh box` work?")


def device(name: str, total: int, free: int) -> Device:
    """Return a device of that name."""
    kind = name.rstrip("0123456789")
    return Device(name=name, kind=kind, total_bytes=total, free_bytes=free)


def model(number: int = 1, size_bytes: int = GIB, **defaults: Any) -> Model:
    """Return a model that is served on ``box``."""
    return Model(
        id=number,
        name=f"m{number}",
        paths=(Path(f"/m{number}.gguf"),),
        size_bytes=size_bytes,
        defaults=ModelDefaults(
            server={"context_size": 256, **defaults.pop("server", {})},
            **{"runner": "box", **defaults},
        ),
    )


def on_box(kept: Model) -> RunningServer:
    """Return a server of the model there."""
    server = running(kept, pid=7, node="box")
    return attrs.evolve(server, record=attrs.evolve(server.record, runner="box"))


class Machine:
    """This machine with 4 GiB, and ``box``, whose devices a test says."""

    def __init__(
        self,
        *there: Device,
        more: dict[str, ProcessRunner] | None = None,
        here: str | None = None,
        **parts: Any,
    ) -> None:
        self.box = MockRunner()
        self.box.far_devices = there
        self.catalog = MemoryModelCatalog()
        self.ledger = paper_ledger(
            devices=PaperDevices(device("cpu", 4 * GIB, 2 * GIB), machine=here),
            processes=PaperProcesses({7: (3 * GIB, 3 * GIB)}),
            catalog=self.catalog,
            runners={"local": MockRunner(), "box": self.box, **(more or {})},
            **parts,
        )

    async def opened(self) -> MemoryLedger:
        """Return the ledger, measured, of a catalog with one model of ``box``."""
        await self.catalog.add(model())
        await self.ledger.open()
        return self.ledger


async def test_budgets_of_a_machine_carry_the_name_of_its_runner() -> None:
    """What is left to others is left there, too; GPUs are had whole."""
    machine = Machine(device("cpu", 40 * GIB, 40 * GIB), device("cuda0", 8 * GIB, 7 * GIB))
    ledger = await machine.opened()
    assert ledger.budgets == {
        "cpu": 2 * GIB,
        "box/cpu": 39 * GIB,
        "box/cuda0": 7 * GIB,
    }


async def test_model_needs_what_it_needs_there_and_nothing_here() -> None:
    """Though it would not fit here."""
    ledger = await Machine(device("cpu", 40 * GIB, 40 * GIB)).opened()
    needs = await ledger.needs(model(size_bytes=20 * GIB))
    assert set(needs) == {"box/cpu"}
    assert needs["box/cpu"] > 20 * GIB
    assert set(await ledger.needs(model(runner="local"))) == {"cpu"}


async def test_models_of_different_machines_never_evict_each_other() -> None:
    """One that needs all of ``box`` leaves alone what fills this machine."""
    ledger = await Machine(device("cpu", 4 * GIB, 4 * GIB)).opened()
    planner = MemoryPlanner(ledger.budgets)

    async def terms(each: Model) -> ModelTerms:
        return ModelTerms(model_id=each.id, name=each.name, memory=await ledger.needs(each))

    here = await terms(model(1, runner="local"))
    there = await terms(model(2, size_bytes=3 * GIB))
    also_there = await terms(model(3, size_bytes=3 * GIB))
    held = [Held(server=1, terms=here, movable=True)]
    assert planner.plan(there, held) == frozenset()
    held.append(Held(server=2, terms=there, movable=True))
    assert planner.plan(also_there, held) == frozenset({2})


async def test_context_is_what_the_other_machine_has_room_for() -> None:
    """The model's own is for a larger one."""
    facts = (await MockModelSource().locate("m.gguf")).facts
    facts = attrs.evolve(
        facts, context_length=131_072, layers=32, heads=32, kv_heads=32, embedding_size=4096
    )
    asked = attrs.evolve(model(), facts=facts, defaults=ModelDefaults(runner="box"))
    small = await Machine(device("cpu", 16 * GIB, 16 * GIB)).opened()
    large = await Machine(device("cpu", 400 * GIB, 400 * GIB)).opened()
    reduced = (await small.place(asked)).context_size
    assert reduced is not None
    assert 4096 <= reduced < 131_072
    assert (await large.place(asked)).context_size is None


async def test_machine_that_is_away_keeps_its_last_budgets() -> None:
    """And what was known of it still says what fits."""
    machine = Machine(device("cpu", 40 * GIB, 40 * GIB))
    ledger = await machine.opened()
    machine.box.far_devices = AWAY
    await ledger.measure([])
    assert ledger.budgets["box/cpu"] == 39 * GIB
    assert "box/cpu" in await ledger.needs(model())


async def test_machine_that_was_never_there_is_told_and_counts_from_its_return() -> None:
    """Nothing is started blindly on it."""
    machine = Machine()
    machine.box.far_devices = AWAY
    ledger = await machine.opened()
    assert set(ledger.budgets) == {"cpu"}
    with pytest.raises(NodeUnreachable, match="box cannot be reached"):
        await ledger.place(model())
    machine.box.far_devices = [device("cpu", 40 * GIB, 30 * GIB)]
    assert (await ledger.place(model())).memory["box/cpu"] > GIB
    assert ledger.budgets["box/cpu"] == 30 * GIB


async def test_budget_there_stays_while_a_server_is_on_it() -> None:
    """What it has taken of it is not known; when it is gone, what is free is the budget."""
    machine = Machine(device("cpu", 40 * GIB, 30 * GIB))
    ledger = await machine.opened()
    machine.box.far_devices = [device("cpu", 40 * GIB, 11 * GIB)]
    await ledger.measure([on_box(model())])
    assert ledger.budgets["box/cpu"] == 30 * GIB
    assert not await ledger.observe(on_box(model())), "a pid there is another process here"
    await ledger.measure([])
    assert ledger.budgets["box/cpu"] == 11 * GIB


async def test_budget_of_a_machine_follows_what_others_take_if_servers_memory_is_told() -> None:
    """As here: what ours have comes back when they end, and is theirs until then."""
    machine = Machine(device("cpu", 40 * GIB, 30 * GIB), device("cuda0", 8 * GIB, 7 * GIB))
    ledger = await machine.opened()
    server = on_box(model())
    machine.box.far_memory[server.server_id] = ServerMemory(
        resident_bytes=6 * GIB, own_bytes=4 * GIB, accelerators={"cuda0": GIB}
    )
    machine.box.far_devices = [device("cpu", 40 * GIB, 20 * GIB), device("cuda0", 8 * GIB, 1)]
    await ledger.measure([server])
    assert ledger.budgets["box/cpu"] == 24 * GIB
    untold = on_box(model())
    machine.box.far_devices = [device("cpu", 40 * GIB, 5 * GIB), device("cuda0", 8 * GIB, 1)]
    await ledger.measure([server, untold])
    assert ledger.budgets["box/cpu"] == 24 * GIB, "what the other one has is not known"


async def test_server_there_that_takes_more_than_was_thought_raises_the_need() -> None:
    """At once, on each device that it needs; and the next gateway knows."""
    machine = Machine(device("cpu", 40 * GIB, 30 * GIB), device("cuda0", 30 * GIB, 30 * GIB))
    ledger = await machine.opened()
    (kept,) = await machine.catalog.list()
    source = MockModelSource()
    facts = attrs.evolve((await source.locate("m.gguf")).facts, layers=10)
    kept = attrs.evolve(kept, facts=facts, size_bytes=8 * GIB)
    server, needs = on_box(kept), await ledger.needs(kept)
    assert set(needs) == {"box/cpu", "box/cuda0"}
    assert needs["box/cuda0"] > 4 * GIB
    more = needs["box/cuda0"] + GIB

    def has(resident_bytes: int, on_gpu: int) -> None:
        machine.box.far_memory[server.server_id] = ServerMemory(
            resident_bytes=resident_bytes,
            own_bytes=0,
            accelerators={"cuda0": on_gpu, "cuda1": GIB},
        )

    has(16 * MIB, GIB)
    assert not await ledger.observe(server)
    assert ledger.observed_bytes(server) == 16 * MIB
    has(8 * MIB, more)
    assert await ledger.observe(server)
    assert (await ledger.needs(kept))["box/cuda0"] == more
    await ledger.remember(server, 3)
    (run,) = (await machine.catalog.runs())[kept.id]
    assert run.memory["cpu"].observed_bytes == 16 * MIB
    assert run.memory["cuda0"].observed_bytes == more
    assert set(run.memory) == {"cpu", "cuda0"}, "nothing was estimated for another GPU"


async def test_memory_that_a_strangers_runner_cannot_tell_is_not_known() -> None:
    """Whatever it raises."""

    class Broken(MockRunner):
        async def memory(self, handle: ProcessHandle) -> ServerMemory | None:
            raise ValueError("a bug")

    broken = Broken()
    broken.far_devices = [device("cpu", 40 * GIB, 30 * GIB)]
    machine = Machine(device("cpu", 40 * GIB, 30 * GIB), more={"broken": broken})
    ledger = await machine.opened()
    server = on_box(model(runner="broken"))
    server = attrs.evolve(server, record=attrs.evolve(server.record, runner="broken"))
    assert not await ledger.observe(server)
    assert ledger.observed_bytes(server) is None
    await ledger.measure([server])


def gpu(name: str, identifier: str | None, free: int = 7 * GIB) -> Device:
    """Return a GPU with 8 GiB."""
    return Device(
        name=name, kind="cuda", total_bytes=8 * GIB, free_bytes=free, identifier=identifier
    )


async def test_two_ways_to_one_machine_have_one_budget() -> None:
    """By the name of the first runner; GPUs are known by what they are, not by their number."""
    also = MockRunner()
    machine = Machine(
        device("cpu", 40 * GIB, 40 * GIB),
        gpu("cuda0", "GPU-a"),
        gpu("cuda1", "GPU-b", free=GIB),
        more={"also": also},
        limits={"also/cpu": 9 * GIB},
    )
    machine.box.far_machine = also.far_machine = "one boot"
    also.far_devices = [
        device("cpu", 40 * GIB, 40 * GIB),
        gpu("cuda0", "GPU-b", free=GIB),
        gpu("cuda1", "GPU-c"),
    ]
    await machine.catalog.add(model(2, runner="also"))
    ledger = await machine.opened()
    assert ledger.budgets == {
        "cpu": 2 * GIB,
        "box/cpu": 9 * GIB,
        "box/cuda0": 7 * GIB,
        "box/cuda1": GIB,
        "also/cuda1": 7 * GIB,
    }
    there = await ledger.needs(
        model(2, size_bytes=3 * GIB, runner="also", server={"gpu_layers": 0})
    )
    assert set(there) == {"box/cpu"}
    for limits in ({"also/cpu": 8, "box/cpu": 5}, {"also/cpu": 4, "box/cpu": 9}):
        ledger.set_limits(limits)
        assert ledger.budgets["box/cpu"] == min(limits.values())
    ledger.set_limits({})
    await ledger.measure([])
    assert ledger.budgets["box/cpu"] == 39 * GIB


async def test_machines_that_are_started_at_other_times_are_two() -> None:
    """And those of which it is not told."""
    also = MockRunner()
    also.far_devices = [device("cpu", 20 * GIB, 10 * GIB)]
    machine = Machine(device("cpu", 40 * GIB, 30 * GIB), more={"also": also})
    machine.box.far_machine, also.far_machine = "one boot", "another"
    await machine.catalog.add(model(2, runner="also"))
    ledger = await machine.opened()
    assert ledger.budgets == {"cpu": 2 * GIB, "box/cpu": 30 * GIB, "also/cpu": 10 * GIB}
    machine.box.far_machine = also.far_machine = None
    await ledger.measure([])
    assert ledger.budgets == {"cpu": 2 * GIB, "box/cpu": 30 * GIB, "also/cpu": 10 * GIB}


async def test_way_back_to_this_machine_leads_to_its_own_budget() -> None:
    """A server behind it needs what all need here, and what it has is counted as ours."""
    machine = Machine(device("cpu", 4 * GIB, 2 * GIB), here="this boot")
    machine.box.far_machine = "this boot"
    ledger = await machine.opened()
    assert ledger.budgets == {"cpu": 2 * GIB}
    assert set(await ledger.needs(model())) == {"cpu"}
    server = on_box(model())
    machine.box.far_memory[server.server_id] = ServerMemory(resident_bytes=GIB, own_bytes=GIB // 2)
    await ledger.measure([server])
    assert ledger.budgets == {"cpu": 2 * GIB + GIB // 2}
    del machine.box.far_memory[server.server_id]
    await ledger.measure([server])
    assert ledger.budgets == {"cpu": 2 * GIB + GIB // 2}, "what it has is not known"


async def test_budget_by_hand_holds_there_and_one_for_no_device_is_refused() -> None:
    """The error names the devices of that machine; what is away may have any."""
    there = device("cpu", 40 * GIB, 30 * GIB)
    ledger = await Machine(there, limits={"box/cpu": 5}).opened()
    assert ledger.budgets["box/cpu"] == 5
    with pytest.raises(ConfigurationError, match=r"box/cuda7: .*runner 'box' has box/cpu"):
        await Machine(there, limits={"box/cuda7": 5}).opened()
    with pytest.raises(ConfigurationError, match=r"cellar/cpu: there is no such device"):
        await Machine(there, limits={"cellar/cpu": 5}).opened()
    away = Machine(limits={"box/cuda7": 5})
    away.box.far_devices = AWAY
    await away.opened()


async def test_runner_that_cannot_tell_its_devices_is_named_once_and_harms_nobody() -> None:
    """Its own models are refused; this machine's go on."""

    class Broken(MockRunner):
        async def devices(self) -> list[Device]:
            raise ValueError("a bug")

    events = RecordingSink()
    machine = Machine(events=events, more={"broken": Broken()})
    await machine.catalog.add(model(9, runner="broken"))
    ledger = await machine.opened()
    await ledger.measure([])
    (failed,) = events.events
    assert isinstance(failed, AdapterFailed)
    assert failed.adapter_name == "broken"
    with pytest.raises(AdapterError, match="a bug"):
        await ledger.place(model(9, runner="broken"))
    assert set(ledger.budgets) == {"cpu"}


async def test_machine_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A measurement goes on without it."""
    monkeypatch.setattr(machines, "_SURVEY_TIMEOUT_S", 0.01)

    class Hanging(MockRunner):
        async def devices(self) -> list[Device]:
            await anyio.sleep_forever()
            raise AssertionError

    machine = Machine(device("cpu", 40 * GIB, 40 * GIB), more={"hanging": Hanging()})
    await machine.catalog.add(attrs.evolve(model(9, runner="hanging"), name="m9"))
    ledger = await machine.opened()
    assert set(ledger.budgets) == {"cpu", "box/cpu"}
    with pytest.raises(NodeUnreachable, match="has not told its memory"):
        await ledger.place(model(9, runner="hanging"))
