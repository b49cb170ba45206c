"""gglib runs language-model servers for people.

``async with gglib.open() as lib`` is where to begin. Names are resolved when they are used, so
that ``import gglib`` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gglib import blocking, errors
    from gglib.domain.config import LoraAdapter, ServerConfig
    from gglib.domain.handle import ProcessHandle
    from gglib.domain.health import ServerHealth
    from gglib.domain.ids import new_server_id
    from gglib.domain.inference import InferenceConfig
    from gglib.domain.model import Model, ModelDefaults, ModelFacts
    from gglib.domain.state import ServerState
    from gglib.errors import GglibError
    from gglib.library import Library
    from gglib.library import open_library as open

__all__ = [
    "GglibError",
    "InferenceConfig",
    "Library",
    "LoraAdapter",
    "Model",
    "ModelDefaults",
    "ModelFacts",
    "ProcessHandle",
    "ServerConfig",
    "ServerHealth",
    "ServerState",
    "__version__",
    "blocking",
    "errors",
    "new_server_id",
    "open",
]

_PLACES = {
    "GglibError": ("gglib.errors", "GglibError"),
    "InferenceConfig": ("gglib.domain.inference", "InferenceConfig"),
    "Library": ("gglib.library", "Library"),
    "LoraAdapter": ("gglib.domain.config", "LoraAdapter"),
    "Model": ("gglib.domain.model", "Model"),
    "ModelFacts": ("gglib.domain.model", "ModelFacts"),
    "ModelDefaults": ("gglib.domain.model", "ModelDefaults"),
    "ProcessHandle": ("gglib.domain.handle", "ProcessHandle"),
    "ServerConfig": ("gglib.domain.config", "ServerConfig"),
    "ServerHealth": ("gglib.domain.health", "ServerHealth"),
    "ServerState": ("gglib.domain.state", "ServerState"),
    "blocking": ("gglib.blocking", ""),
    "errors": ("gglib.errors", ""),
    "new_server_id": ("gglib.domain.ids", "new_server_id"),
    "open": ("gglib.library", "open_library"),
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'gglib' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _PLACES[name]
    found = import_module(module)
    value = globals()[name] = getattr(found, attribute) if attribute else found
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
