"""For tests of others: contracts for adapter authors, mocks, and a pytest plugin.

Names are resolved when they are used: the contracts need pytest, the mocks do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gglib_adapters.catalog.memory import MemoryModelCatalog, MemoryServerRegistry

    from gglib.testing.contexts import RecordingSink, make_context
    from gglib.testing.contracts.clock import ClockContract
    from gglib.testing.contracts.engine import EngineContract
    from gglib.testing.contracts.event_sink import EventSinkContract
    from gglib.testing.contracts.model_catalog import ModelCatalogContract
    from gglib.testing.contracts.model_source import ModelSourceContract
    from gglib.testing.contracts.process_runner import ProcessRunnerContract
    from gglib.testing.contracts.process_table import ProcessTableContract
    from gglib.testing.contracts.server_registry import ServerRegistryContract
    from gglib_adapters.runners.mock import (
        FakeClock,
        MockCall,
        MockEngineServer,
        MockRunner,
        MockScript,
    )

__all__ = [
    "ClockContract",
    "EngineContract",
    "EventSinkContract",
    "FakeClock",
    "MemoryModelCatalog",
    "MemoryServerRegistry",
    "MockCall",
    "MockEngineServer",
    "MockRunner",
    "MockScript",
    "ModelCatalogContract",
    "ModelSourceContract",
    "ProcessRunnerContract",
    "ProcessTableContract",
    "RecordingSink",
    "ServerRegistryContract",
    "make_context",
]

_PLACES = {
    "ClockContract": "gglib.testing.contracts.clock",
    "EngineContract": "gglib.testing.contracts.engine",
    "EventSinkContract": "gglib.testing.contracts.event_sink",
    "FakeClock": "gglib_adapters.runners.mock",
    "MemoryModelCatalog": "gglib_adapters.catalog.memory",
    "MemoryServerRegistry": "gglib_adapters.catalog.memory",
    "MockCall": "gglib_adapters.runners.mock",
    "MockEngineServer": "gglib_adapters.runners.mock",
    "MockRunner": "gglib_adapters.runners.mock",
    "MockScript": "gglib_adapters.runners.mock",
    "ModelCatalogContract": "gglib.testing.contracts.model_catalog",
    "ModelSourceContract": "gglib.testing.contracts.model_source",
    "ProcessRunnerContract": "gglib.testing.contracts.process_runner",
    "ProcessTableContract": "gglib.testing.contracts.process_table",
    "RecordingSink": "gglib.testing.contexts",
    "ServerRegistryContract": "gglib.testing.contracts.server_registry",
    "make_context": "gglib.testing.contexts",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'gglib.testing' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_PLACES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
