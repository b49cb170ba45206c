"""Ledgers of machines on paper."""

from __future__ import annotations

from gglib.bootstrap import SystemClock
from gglib.domain.device import Device, DeviceSurvey
from gglib.domain.handle import ProcessHandle
from gglib.domain.ids import new_server_id
from gglib.domain.model import Model
from gglib.domain.ownership import Owner, OwnerKind, ServerRecord
from gglib.domain.state import ServerState
from gglib.logs import SilentSink
from gglib.ports.clock import Clock
from gglib.ports.context import RunnerSet
from gglib.ports.device_inventory import DeviceInventory
from gglib.ports.event_sink import EventSink
from gglib.ports.model_catalog import ModelCatalog
from gglib.ports.model_source import ModelSource
from gglib.ports.process_runner import ProcessRunner
from gglib.ports.process_table import ProcessTable
from gglib.services.intent import config_for
from gglib.services.machines import Machines
from gglib.services.memory_ledger import MemoryLedger
from gglib.services.models import ModelService
from gglib.services.serving import RunningServer
from gglib.testing.mock_parts import MockDeviceInventory, MockModelSource
from gglib_adapters.catalog.memory import MemoryModelCatalog, MemoryServerRegistry
from gglib_adapters.process_table import PsutilProcessTable

__all__ = ["PaperDevices", "PaperProcesses", "paper_ledger", "running"]


class PaperDevices(DeviceInventory):
    """Devices that are as they are said to be."""

    def __init__(self, *found: Device, machine: str | None = None) -> None:
        self.found = list(found)
        self.machine = machine

    async def survey(self) -> DeviceSurvey:
        """Return them."""
        return DeviceSurvey(devices=self.found, machine=self.machine)


class PaperProcesses(PsutilProcessTable):
    """This process, and the memory of others: resident, and their own part of it."""

    def __init__(self, memory: dict[int, tuple[int, int]]) -> None:
        super().__init__()
        self.memory = memory

    @property
    def node(self) -> str:
        """This machine."""
        return self.identity().node

    def memory_bytes(self, pid: int) -> int | None:
        """See ``ProcessTable``."""
        return self.memory[pid][0] if pid in self.memory else None

    def own_memory_bytes(self, pid: int) -> int | None:
        """See ``ProcessTable``."""
        return self.memory[pid][1] if pid in self.memory else None


def running(model: Model, *, pid: int | None, node: str) -> RunningServer:
    """Return a server that is said to run."""
    server_id = new_server_id()
    handle = ProcessHandle(
        model_id=model.id,
        model_name=model.name,
        pid=pid,
        port=9001,
        started_at=1.0,
        server_id=server_id,
        runner="local",
        node=node,
        base_url="http://127.0.0.1:9001",
    )
    record = ServerRecord(
        server_id=server_id,
        owner=Owner(kind=OwnerKind.GATEWAY, pid=1, process_started_at=1.0, node=node),
        config=config_for(model, {}, "mock"),
        engine="mock",
        runner="local",
        state=ServerState.READY,
        created_at=1.0,
        handle=handle,
    )
    return RunningServer(record=record, handle=handle, model=model, load_s=1.0)


def paper_ledger(
    models: ModelService | None = None,
    *,
    devices: DeviceInventory | None = None,
    processes: ProcessTable | None = None,
    catalog: ModelCatalog | None = None,
    registry: MemoryServerRegistry | None = None,
    runners: dict[str, ProcessRunner] | None = None,
    clock: Clock | None = None,
    limits: dict[str, int] | None = None,
    source: ModelSource | None = None,
    events: EventSink | None = None,
) -> MemoryLedger:
    """Return a ledger of a machine with 64 GiB and nothing on it, unless something else is said."""
    catalog = catalog or MemoryModelCatalog()
    clock = clock or SystemClock()
    if models is None:
        models = ModelService(catalog, MockModelSource(), clock=clock, events=SilentSink())
    return MemoryLedger(
        devices=devices or MockDeviceInventory(),
        processes=processes or PsutilProcessTable(),
        catalog=catalog,
        models=models,
        registry=registry or MemoryServerRegistry(),
        machines=Machines(RunnerSet(runners or {}), "local", source or MockModelSource()),
        clock=clock,
        events=events or SilentSink(),
        limits=limits or {},
    )
