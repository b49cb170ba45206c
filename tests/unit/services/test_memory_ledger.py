"""Budgets follow what the machine has, needs what servers took."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from support.ledgers import PaperDevices, PaperProcesses, paper_ledger, running

from gglib.domain.device import Device, DeviceSurvey
from gglib.domain.events import AdapterFailed
from gglib.domain.memory_observed import MemoryObservation
from gglib.domain.model import Model, ModelDefaults, ModelFacts
from gglib.domain.model_run import ModelRun
from gglib.errors import ConfigurationError
from gglib.services.memory_ledger import MemoryLedger
from gglib.testing import MockRunner
from gglib.testing.contexts import RecordingSink
from gglib.testing.mock_parts import MockModelSource
from gglib_adapters.catalog.memory import MemoryModelCatalog, MemoryServerRegistry

pytestmark = pytest.mark.anyio
MIB, GIB = 2**20, 2**30


def cpu(total: int, free: int) -> Device:
    """Return the machine's own memory."""
    return Device(name="cpu", kind="cpu", total_bytes=total, free_bytes=free)


def gpu(number: int, total: int, free: int) -> Device:
    """Return a GPU."""
    return Device(name=f"cuda{number}", kind="cuda", total_bytes=total, free_bytes=free)


def model(number: int = 1, size_bytes: int = GIB, **defaults: Any) -> Model:
    """Return a model without layers to speak of."""
    server = {"context_size": 256, **defaults.pop("server", {})}
    return Model(
        id=number,
        name=f"m{number}",
        paths=(Path(f"/m{number}.gguf"),),
        size_bytes=size_bytes,
        defaults=ModelDefaults(server=server, **defaults),
    )


async def opened(*devices: Device, **parts: Any) -> MemoryLedger:
    """Return a ledger of a machine with these devices, measured."""
    ledger = paper_ledger(devices=PaperDevices(*devices), **parts)
    await ledger.open()
    return ledger


async def test_budget_is_what_is_free_less_what_is_left_to_others() -> None:
    """A twentieth of the total is never given away, nor more than there is."""
    assert (await opened(cpu(10 * GIB, 4 * GIB))).budgets == {"cpu": 4 * GIB}
    assert (await opened(cpu(10 * GIB, 10 * GIB))).budgets == {"cpu": 10 * GIB - GIB // 2}
    assert (await opened(cpu(100 * GIB, 100 * GIB))).budgets == {"cpu": 99 * GIB}


async def test_budget_counts_what_comes_back_when_our_servers_end() -> None:
    """Not the file's pages, which are available already."""
    processes = PaperProcesses({7: (5 * GIB, 2 * GIB)})
    devices = PaperDevices(cpu(20 * GIB, 10 * GIB))
    ledger = paper_ledger(devices=devices, processes=processes, runners={"local": MockRunner()})
    await ledger.open([running(model(), pid=7, node=processes.node)])
    assert ledger.budgets == {"cpu": 12 * GIB}


async def test_budget_follows_what_other_programs_take() -> None:
    """With the next measurement."""
    devices = PaperDevices(cpu(20 * GIB, 10 * GIB))
    ledger = paper_ledger(devices=devices)
    await ledger.open()
    devices.found = [cpu(20 * GIB, 3 * GIB)]
    await ledger.measure([])
    assert ledger.budgets == {"cpu": 3 * GIB}


async def test_budget_of_a_gpu_stays_while_a_server_is_on_it() -> None:
    """What the server has there is not known; once it is gone, what is free is the budget."""
    devices = PaperDevices(cpu(20 * GIB, 20 * GIB), gpu(0, 8 * GIB, 7 * GIB))
    ledger = paper_ledger(devices=devices, runners={"local": MockRunner()})
    await ledger.open()
    assert ledger.budgets["cuda0"] == 7 * GIB
    devices.found[1] = gpu(0, 8 * GIB, 2 * GIB)
    on_it = running(model(), pid=None, node="here")
    await ledger.measure([on_it])
    assert ledger.budgets["cuda0"] == 7 * GIB
    await ledger.measure([])
    assert ledger.budgets["cuda0"] == 2 * GIB


async def test_budget_by_hand_holds_and_one_for_no_device_is_refused() -> None:
    """The error names the devices that there are."""
    ledger = await opened(cpu(10 * GIB, 10 * GIB), limits={"cpu": 5})
    assert ledger.budgets == {"cpu": 5}
    with pytest.raises(ConfigurationError, match=r"cuda7: there is no such device.*has cpu"):
        await opened(cpu(GIB, GIB), limits={"cuda7": 5})


async def test_servers_of_others_count_with_what_they_have_yet_to_take() -> None:
    """A library's server that has just begun to load will take the rest."""
    catalog = MemoryModelCatalog()
    kept = await catalog.add(model(size_bytes=4 * GIB))
    processes = PaperProcesses({9: (GIB, GIB)})
    server = running(kept, pid=9, node=processes.node)
    ledger = paper_ledger(
        devices=PaperDevices(cpu(20 * GIB, 10 * GIB)),
        processes=processes,
        catalog=catalog,
        registry=MemoryServerRegistry(server.record),
        runners={"local": MockRunner()},
    )
    await ledger.open()
    need = (await ledger.needs(kept))["cpu"]
    assert need > 4 * GIB
    assert ledger.budgets == {"cpu": 10 * GIB - (need - GIB)}


async def test_model_whose_memory_somebody_else_sees_to_needs_nothing() -> None:
    """Its runner tells no devices."""
    far = MockRunner()
    far.far_devices = []
    ledger = await opened(cpu(GIB, GIB), runners={"local": MockRunner(), "far": far})
    assert await ledger.needs(model(runner="far")) == {}
    assert (await ledger.needs(model()))["cpu"] > GIB


async def test_layers_go_to_gpus_as_far_as_their_budgets_hold() -> None:
    """The rest needs the machine's own memory; a stated need is shared alike."""
    source = MockModelSource()
    facts = attrs.evolve((await source.locate("m.gguf")).facts, layers=10)
    large = attrs.evolve(model(size_bytes=8 * GIB), facts=facts)
    ledger = await opened(cpu(64 * GIB, 64 * GIB), gpu(0, 6 * GIB, 5 * GIB))
    needs = await ledger.needs(large)
    assert 3 * GIB < needs["cuda0"] <= 5 * GIB
    assert needs["cpu"] > 2 * GIB
    only_cpu = await ledger.needs(
        attrs.evolve(large, defaults=ModelDefaults(server={"gpu_layers": 0}, memory_bytes=77))
    )
    assert only_cpu == {"cpu": 77}


async def test_server_that_takes_more_than_was_thought_raises_the_need_at_once() -> None:
    """And what it took is kept when it ends, so that the next gateway knows."""
    catalog = MemoryModelCatalog()
    kept = await catalog.add(model(size_bytes=GIB))
    processes = PaperProcesses({7: (GIB // 2, 0)})
    parts: dict[str, Any] = {
        "processes": processes,
        "catalog": catalog,
        "runners": {"local": MockRunner()},
    }
    ledger = await opened(cpu(64 * GIB, 64 * GIB), **parts)
    server = running(kept, pid=7, node=processes.node)
    before = (await ledger.needs(kept))["cpu"]
    assert not await ledger.observe(server)
    processes.memory[7] = (before + MIB, 0)
    assert await ledger.observe(server)
    assert (await ledger.needs(kept))["cpu"] == before + MIB
    assert ledger.observed_bytes(server) == before + MIB
    processes.memory[7] = (1, 0)
    assert not await ledger.observe(server)
    assert ledger.observed_bytes(server) == before + MIB

    await ledger.remember(server, 3)

    assert ledger.observed_bytes(server) is None
    (run,) = (await catalog.runs())[kept.id]
    assert (run.requests, run.memory["cpu"].observed_bytes) == (3, before + MIB)
    again = await opened(cpu(64 * GIB, 64 * GIB), **parts)
    assert (await again.needs(kept))["cpu"] == before + MIB


async def test_stated_need_is_not_corrected() -> None:
    """Somebody knew better."""
    processes = PaperProcesses({7: (9 * GIB, 0)})
    ledger = await opened(
        cpu(64 * GIB, 64 * GIB), processes=processes, runners={"local": MockRunner()}
    )
    stated = model(memory_bytes=5)
    server = running(stated, pid=7, node=processes.node)
    assert await ledger.needs(stated) == {"cpu": 5}
    assert not await ledger.observe(server)
    await ledger.remember(server, 1)
    assert await ledger.needs(stated) == {"cpu": 5}


async def test_server_on_another_machine_is_not_looked_at() -> None:
    """A pid there is another process here."""
    processes = PaperProcesses({7: (9 * GIB, 9 * GIB)})
    ledger = await opened(
        cpu(20 * GIB, 10 * GIB), processes=processes, runners={"local": MockRunner()}
    )
    away = running(model(), pid=7, node="elsewhere")
    assert not await ledger.observe(away)
    assert ledger.observed_bytes(away) is None
    await ledger.measure([away])
    assert ledger.budgets == {"cpu": 10 * GIB}


async def test_most_used_models_are_known_from_their_runs() -> None:
    """By their requests; one that was only loaded is not used."""
    catalog = MemoryModelCatalog()
    seen = {"cpu": MemoryObservation(estimated_bytes=1, observed_bytes=1)}
    ids = []
    for name, requests in (("a", (1, 1)), ("b", (5,)), ("c", (0,))):
        kept = await catalog.add(attrs.evolve(model(), name=name))
        ids.append(kept.id)
        for count in requests:
            await catalog.add_run(kept.id, ModelRun(ended_at=1, requests=count, memory=seen))
    ledger = await opened(cpu(GIB, GIB), catalog=catalog)
    assert ledger.most_used() == [ids[1], ids[0]]


class BrokenDevices(PaperDevices):
    """A stranger's inventory that has a bug while it is told to."""

    broken = True

    async def survey(self) -> DeviceSurvey:
        """Return what there is, or raise."""
        if self.broken:
            raise ZeroDivisionError("oops")
        return await super().survey()


async def test_devices_that_cannot_be_read_limit_nothing_and_are_told_of_once() -> None:
    """Budgets stay as they were; from the start, there are none."""
    devices, events = BrokenDevices(cpu(20 * GIB, 10 * GIB)), RecordingSink()
    ledger = paper_ledger(devices=devices, events=events)
    await ledger.open()
    assert ledger.budgets == {}
    assert await ledger.needs(model()) == {}
    devices.broken = False
    await ledger.measure([])
    assert ledger.budgets == {"cpu": 10 * GIB}
    devices.broken = True
    await ledger.measure([])
    await ledger.measure([])
    assert ledger.budgets == {"cpu": 10 * GIB}
    assert [event.reason for event in events.events if isinstance(event, AdapterFailed)] == [
        "ZeroDivisionError: oops",
        "ZeroDivisionError: oops",
    ]


async def test_measurement_that_something_came_into_changes_nothing() -> None:
    """What has begun to start or stop meanwhile has an unknown part of what is not free."""
    devices = PaperDevices(cpu(20 * GIB, 10 * GIB))
    ledger = paper_ledger(devices=devices)
    await ledger.open()
    devices.found = [cpu(20 * GIB, 3 * GIB)]
    await ledger.measure([], holds=lambda: False)
    assert ledger.budgets == {"cpu": 10 * GIB}


async def test_servers_that_were_taken_over_count_in_budgets_as_ours() -> None:
    """What they have was somebody's when the budgets were first made."""
    kept = await (catalog := MemoryModelCatalog()).add(model(size_bytes=10 * GIB))
    processes = PaperProcesses({9: (10 * GIB, 9 * GIB)})
    server = running(kept, pid=9, node=processes.node)
    ledger = paper_ledger(
        devices=PaperDevices(cpu(64 * GIB, 40 * GIB), gpu(0, 24 * GIB, 13 * GIB)),
        processes=processes,
        catalog=catalog,
        registry=MemoryServerRegistry(server.record),
        runners={"local": MockRunner()},
    )
    await ledger.open()
    assert ledger.budgets["cuda0"] == 13 * GIB
    await ledger.measure([server], afresh=True)
    need = await ledger.needs(kept)
    assert need["cuda0"] > 10 * GIB
    assert ledger.budgets == {"cpu": 49 * GIB, "cuda0": 13 * GIB + need["cuda0"]}


LARGE = ModelFacts(
    architecture="llama",
    layers=32,
    heads=32,
    kv_heads=8,
    embedding_size=4096,
    feed_forward_size=14336,
    vocabulary_size=128256,
    context_length=131072,
)


async def test_context_that_nobody_chose_is_as_large_as_there_is_room() -> None:
    """A model whose own context takes more than the machine has is served with less."""
    eight = Model(id=1, name="m", paths=("/m",), size_bytes=4 * GIB, facts=LARGE)
    ledger = await opened(cpu(16 * GIB, 12 * GIB))
    placement = await ledger.place(eight)
    assert placement.context_size is not None
    assert placement.context_size % 1024 == 0
    assert placement.context_size > 32768
    assert 11 * GIB < placement.memory["cpu"] <= 12 * GIB
    assert await ledger.needs(eight, placement.context_size) == placement.memory
    chosen = attrs.evolve(eight, defaults=ModelDefaults(server={"context_size": 131072}))
    assert (await ledger.place(chosen)).context_size is None
    assert (await ledger.place(chosen)).memory["cpu"] > 12 * GIB
    roomy = await opened(cpu(64 * GIB, 64 * GIB))
    assert (await roomy.place(eight)).context_size is None


async def test_model_is_not_refused_for_what_its_servers_kept_beyond_need() -> None:
    """llama.cpp keeps up to 8 GiB of earlier prompts; without that the model fits."""
    processes = PaperProcesses({7: (14 * GIB, 10 * GIB)})
    ledger = await opened(
        cpu(16 * GIB, 12 * GIB), processes=processes, runners={"local": MockRunner()}
    )
    kept = model(size_bytes=5 * GIB)
    server = running(kept, pid=7, node=processes.node)
    assert (await ledger.place(kept)).memory["cpu"] < 6 * GIB
    assert await ledger.observe(server)
    await ledger.remember(server, 1)
    assert (await ledger.place(kept)).memory == {"cpu": ledger.budgets["cpu"]}


async def test_limits_that_change_hold_at_once_and_what_has_none_is_measured_again() -> None:
    """Also of a device that a model is on: what was said of it holds no longer."""
    ledger = await opened(cpu(8 * GIB, 6 * GIB), gpu(0, 4 * GIB, 3 * GIB), limits={"cuda0": GIB})
    assert ledger.budgets["cuda0"] == GIB
    ledger.set_limits({"cpu": 2 * GIB})
    assert ledger.budgets["cpu"] == 2 * GIB
    await ledger.measure([])
    assert ledger.budgets == {"cpu": 2 * GIB, "cuda0": 3 * GIB}


async def test_limit_for_a_device_that_is_not_here_is_refused_before_it_holds() -> None:
    """The others stay."""
    ledger = await opened(cpu(8 * GIB, 6 * GIB), limits={"cpu": GIB})
    with pytest.raises(ConfigurationError, match="no such device"):
        ledger.check_limits({"mars": 1})
    assert ledger.budgets["cpu"] == GIB
