"""gglib runs language-model servers for people.

``async with gglib.open() as lib`` is where to begin. Names are resolved when they are used, so
that ``import gglib`` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gglib import errors
    from gglib.domain.config import LoraAdapter, ServerConfig
    from gglib.domain.handle import ProcessHandle
    from gglib.domain.health import ServerHealth
    from gglib.domain.inference import InferenceConfig
    from gglib.domain.model import Model, ModelDefaults
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
    "ProcessHandle",
    "ServerConfig",
    "ServerHealth",
    "ServerState",
    "__version__",
    "errors",
    "open",
]

_PLACES = {
    "GglibError": ("gglib.errors", "GglibError"),
    "InferenceConfig": ("gglib.domain.inference", "InferenceConfig"),
    "Library": ("gglib.library", "Library"),
    "LoraAdapter": ("gglib.domain.config", "LoraAdapter"),
    "Model": ("gglib.domain.model", "Model"),
    "ModelDefaults": ("gglib.domain.model", "ModelDefaults"),
    "ProcessHandle": ("gglib.domain.handle", "ProcessHandle"),
    "ServerConfig": ("gglib.domain.config", "ServerConfig"),
    "ServerHealth": ("gglib.domain.health", "ServerHealth"),
    "ServerState": ("gglib.domain.state", "ServerState"),
    "errors": ("gglib.errors", ""),
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
