"""Ledgers of machines on paper."""

from __future__ import annotations

from gglib.bootstrap import SystemClock
from gglib.logs import SilentSink
from gglib.ports.clock import Clock
from gglib.ports.context import RunnerSet
from gglib.ports.device_inventory import DeviceInventory
from gglib.ports.model_catalog import ModelCatalog
from gglib.ports.process_runner import ProcessRunner
from gglib.ports.process_table import ProcessTable
from gglib.services.memory_ledger import MemoryLedger
from gglib.services.models import ModelService
from gglib.testing.mock_parts import MockDeviceInventory, MockModelSource
from gglib_adapters.catalog.memory import MemoryModelCatalog, MemoryServerRegistry
from gglib_adapters.process_table import PsutilProcessTable

__all__ = ["paper_ledger"]


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
        runners=RunnerSet(runners or {}),
        default_runner="local",
        clock=clock,
        limits=limits or {},
    )
