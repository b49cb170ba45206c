"""For tests of others: contracts for adapter authors, mocks, and a pytest plugin.

Names are resolved when they are used: the contracts need pytest, the mocks do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gglib.bootstrap import SystemClock
    from gglib.services.demo.tiny_gguf import tiny_gguf
    from gglib.testing.contexts import RecordingSink, make_context
    from gglib.testing.contracts.clock import ClockContract
    from gglib.testing.contracts.device_inventory import DeviceInventoryContract
    from gglib.testing.contracts.engine import EngineContract
    from gglib.testing.contracts.event_sink import EventSinkContract
    from gglib.testing.contracts.model_catalog import ModelCatalogContract
    from gglib.testing.contracts.model_hub import ModelHubContract
    from gglib.testing.contracts.model_source import KnownModel, ModelSourceContract
    from gglib.testing.contracts.process_runner import Behaviour, ProcessRunnerContract, RunnerKit
    from gglib.testing.contracts.process_table import ProcessTableContract
    from gglib.testing.contracts.pull_queue import PullQueueContract
    from gglib.testing.contracts.server_client import ServerClientContract
    from gglib.testing.contracts.server_registry import ServerRegistryContract
    from gglib.testing.mock_parts import MockEngine, MockModelSource, MockServerClient
    from gglib.testing.mocked_gateway import MockGateway, mock_gateway
    from gglib.testing.mocked_library import mock_library
    from gglib.testing.stub_engine import StubEngine
    from gglib_adapters.catalog.memory import MemoryModelCatalog, MemoryServerRegistry
    from gglib_adapters.runners.mock import (
        FakeClock,
        MockCall,
        MockEngineServer,
        MockRequest,
        MockRunner,
        MockScript,
        MockWorld,
    )

__all__ = [
    "Behaviour",
    "ClockContract",
    "DeviceInventoryContract",
    "EngineContract",
    "EventSinkContract",
    "FakeClock",
    "KnownModel",
    "MemoryModelCatalog",
    "MemoryServerRegistry",
    "MockCall",
    "MockEngine",
    "MockEngineServer",
    "MockGateway",
    "MockModelSource",
    "MockRequest",
    "MockRunner",
    "MockScript",
    "MockServerClient",
    "MockWorld",
    "ModelCatalogContract",
    "ModelHubContract",
    "ModelSourceContract",
    "ProcessRunnerContract",
    "ProcessTableContract",
    "PullQueueContract",
    "RecordingSink",
    "RunnerKit",
    "ServerClientContract",
    "ServerRegistryContract",
    "StubEngine",
    "SystemClock",
    "make_context",
    "mock_gateway",
    "mock_library",
    "tiny_gguf",
]

_PLACES = {
    "Behaviour": "gglib.testing.contracts.process_runner",
    "ClockContract": "gglib.testing.contracts.clock",
    "DeviceInventoryContract": "gglib.testing.contracts.device_inventory",
    "EngineContract": "gglib.testing.contracts.engine",
    "EventSinkContract": "gglib.testing.contracts.event_sink",
    "FakeClock": "gglib_adapters.runners.mock",
    "KnownModel": "gglib.testing.contracts.model_source",
    "MemoryModelCatalog": "gglib_adapters.catalog.memory",
    "MemoryServerRegistry": "gglib_adapters.catalog.memory",
    "MockCall": "gglib_adapters.runners.mock",
    "MockEngine": "gglib.testing.mock_parts",
    "MockEngineServer": "gglib_adapters.runners.mock",
    "MockGateway": "gglib.testing.mocked_gateway",
    "MockModelSource": "gglib.testing.mock_parts",
    "MockRequest": "gglib_adapters.runners.mock",
    "MockRunner": "gglib_adapters.runners.mock",
    "MockScript": "gglib_adapters.runners.mock",
    "MockServerClient": "gglib.testing.mock_parts",
    "MockWorld": "gglib_adapters.runners.mock",
    "ModelCatalogContract": "gglib.testing.contracts.model_catalog",
    "ModelHubContract": "gglib.testing.contracts.model_hub",
    "ModelSourceContract": "gglib.testing.contracts.model_source",
    "ProcessRunnerContract": "gglib.testing.contracts.process_runner",
    "ProcessTableContract": "gglib.testing.contracts.process_table",
    "PullQueueContract": "gglib.testing.contracts.pull_queue",
    "RecordingSink": "gglib.testing.contexts",
    "RunnerKit": "gglib.testing.contracts.process_runner",
    "ServerClientContract": "gglib.testing.contracts.server_client",
    "ServerRegistryContract": "gglib.testing.contracts.server_registry",
    "StubEngine": "gglib.testing.stub_engine",
    "SystemClock": "gglib.bootstrap",
    "make_context": "gglib.testing.contexts",
    "mock_gateway": "gglib.testing.mocked_gateway",
    "mock_library": "gglib.testing.mocked_library",
    "tiny_gguf": "gglib.services.demo.tiny_gguf",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'gglib.testing' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_PLACES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
