"""Adapters, found by entry points: gglib's own register exactly as anybody's do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from gglib.errors import AdapterError, GglibError
from gglib.ports.context import AdapterContext

__all__ = [
    "ENGINES",
    "MODEL_CATALOGS",
    "MODEL_SOURCES",
    "PROCESS_RUNNERS",
    "PROCESS_TABLES",
    "SERVER_REGISTRIES",
    "adapter_names",
    "open_adapter",
]

ENGINES = "gglib.engines"
MODEL_CATALOGS = "gglib.model_catalogs"
MODEL_SOURCES = "gglib.model_sources"
PROCESS_RUNNERS = "gglib.process_runners"
PROCESS_TABLES = "gglib.process_tables"
SERVER_REGISTRIES = "gglib.server_registries"

Factory = Callable[[AdapterContext], AbstractAsyncContextManager[object]]
P = TypeVar("P")


def adapter_names(group: str) -> tuple[str, ...]:
    """Return the names registered in a group."""
    return tuple(sorted({entry.name for entry in entry_points(group=group)}))


def _find(group: str, name: str) -> EntryPoint:
    found = tuple(entry_points(group=group, name=name))
    if not found:
        known = ", ".join(adapter_names(group)) or "none; is gglib installed whole?"
        raise AdapterError(group, name, f"not installed; known: {known}")
    return found[0]


async def open_adapter(
    stack: AsyncExitStack, group: str, name: str, port: type[P], context: AdapterContext
) -> P:
    """Enter an adapter's context on ``stack`` and return the port it provides.

    Raises:
        AdapterError: it is not installed, fails to load, or provides something else.
        GglibError: what the adapter itself has to say.
    """
    entry = _find(group, name)
    try:
        factory: Factory = entry.load()
        adapter: Any = await stack.enter_async_context(factory(context))
    except GglibError:
        raise
    except Exception as error:  # a stranger's code: whatever it raises, it is named
        raise AdapterError(group, name, f"{type(error).__name__}: {error}") from error
    if not isinstance(adapter, port):
        kind = type(adapter).__name__
        raise AdapterError(group, name, f"provides a {kind}, which is no {port.__name__}")
    return adapter
