"""What the core needs from outside: one abstract class per port, adapters are their subclasses.

Names are resolved when they are used, so that an adapter pays for what it imports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gglib.domain.events import Event
    from gglib.domain.server_memory import ServerMemory
    from gglib.ports.clock import Clock
    from gglib.ports.context import AdapterContext, AdapterFactory, EngineSet, RunnerSet
    from gglib.ports.device_inventory import Device, DeviceInventory, DeviceSurvey
    from gglib.ports.downloader import Download, Downloader, DownloadProgress
    from gglib.ports.engine import Engine, EngineCapabilities, EngineProbe
    from gglib.ports.event_sink import EventSink
    from gglib.ports.model_catalog import ModelCatalog
    from gglib.ports.model_hub import FileLocation, ModelHub
    from gglib.ports.model_source import FoundFiles, LocatedModel, ModelSource, PassedOver
    from gglib.ports.model_store import ModelStore, StoredModel, StoreSurvey
    from gglib.ports.process_runner import ProcessRunner
    from gglib.ports.process_table import ProcessIdentity, ProcessTable
    from gglib.ports.pull_queue import PullQueue
    from gglib.ports.server_client import ServerClient, ServerProps
    from gglib.ports.server_registry import ServerRegistry

__all__ = [
    "AdapterContext",
    "AdapterFactory",
    "Clock",
    "Device",
    "DeviceInventory",
    "DeviceSurvey",
    "Download",
    "DownloadProgress",
    "Downloader",
    "Engine",
    "EngineCapabilities",
    "EngineProbe",
    "EngineSet",
    "Event",
    "EventSink",
    "FileLocation",
    "FoundFiles",
    "LocatedModel",
    "ModelCatalog",
    "ModelHub",
    "ModelSource",
    "ModelStore",
    "PassedOver",
    "ProcessIdentity",
    "ProcessRunner",
    "ProcessTable",
    "PullQueue",
    "RunnerSet",
    "ServerClient",
    "ServerMemory",
    "ServerProps",
    "ServerRegistry",
    "StoreSurvey",
    "StoredModel",
]

_PLACES = {
    "AdapterContext": "gglib.ports.context",
    "AdapterFactory": "gglib.ports.context",
    "Clock": "gglib.ports.clock",
    "Device": "gglib.ports.device_inventory",
    "DeviceInventory": "gglib.ports.device_inventory",
    "DeviceSurvey": "gglib.ports.device_inventory",
    "Download": "gglib.ports.downloader",
    "DownloadProgress": "gglib.ports.downloader",
    "Downloader": "gglib.ports.downloader",
    "Engine": "gglib.ports.engine",
    "EngineCapabilities": "gglib.ports.engine",
    "EngineProbe": "gglib.ports.engine",
    "EngineSet": "gglib.ports.context",
    "Event": "gglib.domain.events",
    "EventSink": "gglib.ports.event_sink",
    "FileLocation": "gglib.ports.model_hub",
    "FoundFiles": "gglib.ports.model_source",
    "LocatedModel": "gglib.ports.model_source",
    "ModelCatalog": "gglib.ports.model_catalog",
    "ModelHub": "gglib.ports.model_hub",
    "ModelSource": "gglib.ports.model_source",
    "ModelStore": "gglib.ports.model_store",
    "PassedOver": "gglib.ports.model_source",
    "ProcessIdentity": "gglib.ports.process_table",
    "ProcessRunner": "gglib.ports.process_runner",
    "ProcessTable": "gglib.ports.process_table",
    "PullQueue": "gglib.ports.pull_queue",
    "RunnerSet": "gglib.ports.context",
    "ServerClient": "gglib.ports.server_client",
    "ServerMemory": "gglib.domain.server_memory",
    "ServerProps": "gglib.ports.server_client",
    "ServerRegistry": "gglib.ports.server_registry",
    "StoreSurvey": "gglib.ports.model_store",
    "StoredModel": "gglib.ports.model_store",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'gglib.ports' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_PLACES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
