"""Adapters, found by entry points: gglib's own register exactly as anybody's do.

A stranger's code may raise anything, at any moment: here it becomes an ``AdapterError`` that
names whose it is.
"""

from __future__ import annotations

import math
from contextlib import AsyncExitStack
from importlib.metadata import EntryPoint, entry_points
from types import TracebackType
from typing import Any, TypeVar

import anyio
import attrs

from gglib.domain.events import AdapterFailed
from gglib.errors import AdapterError, GglibError
from gglib.ports.context import AdapterContext, AdapterFactory

__all__ = [
    "DEVICE_INVENTORIES",
    "ENGINES",
    "GROUPS",
    "MODEL_CATALOGS",
    "MODEL_SOURCES",
    "PROCESS_RUNNERS",
    "PROCESS_TABLES",
    "SERVER_REGISTRIES",
    "Plugin",
    "adapter_names",
    "enter_adapter",
    "open_adapter",
    "survey_plugins",
]

DEVICE_INVENTORIES = "gglib.device_inventories"
ENGINES = "gglib.engines"
MODEL_CATALOGS = "gglib.model_catalogs"
MODEL_SOURCES = "gglib.model_sources"
PROCESS_RUNNERS = "gglib.process_runners"
PROCESS_TABLES = "gglib.process_tables"
SERVER_REGISTRIES = "gglib.server_registries"

GROUPS = (
    ENGINES,
    PROCESS_RUNNERS,
    MODEL_SOURCES,
    MODEL_CATALOGS,
    SERVER_REGISTRIES,
    PROCESS_TABLES,
    DEVICE_INVENTORIES,
)

P = TypeVar("P")

_OUR_DISTRIBUTION = "gglib"
_MAX_REASON = 300


@attrs.frozen(kw_only=True)
class Plugin:
    """An adapter that another distribution than gglib registers; ``error`` says what is wrong."""

    group: str
    name: str
    distribution: str | None
    version: str | None
    error: AdapterError | None = None


def adapter_names(group: str) -> tuple[str, ...]:
    """Return the names registered in a group."""
    return tuple(sorted({entry.name for entry in entry_points(group=group)}))


def survey_plugins() -> list[Plugin]:
    """Load every adapter of other distributions than gglib, and say which are broken."""
    found = []
    for group in GROUPS:
        for entry in entry_points(group=group):
            distribution, version = _distribution(entry)
            if distribution == _OUR_DISTRIBUTION:
                continue
            error = None
            try:
                _load(_find(group, entry.name))
            except AdapterError as broken:
                error = broken
            found.append(
                Plugin(
                    group=group,
                    name=entry.name,
                    distribution=distribution,
                    version=version,
                    error=error,
                )
            )
    return found


async def open_adapter(
    stack: AsyncExitStack, group: str, name: str, port: type[P], context: AdapterContext
) -> P:
    """Enter an adapter's context on ``stack`` and return the port it provides.

    What it raises when it is left is told by an event, and goes no further.

    Raises:
        AdapterError: it is not installed, fails to load, or provides something else.
        GglibError: what the adapter itself has to say.
    """
    entry = _find(group, name)
    return await enter_adapter(
        stack, _load(entry), port, context, group=group, name=name, entry=entry
    )


async def enter_adapter(
    stack: AsyncExitStack,
    factory: AdapterFactory[P],
    port: type[P],
    context: AdapterContext,
    *,
    group: str,
    name: str,
    entry: EntryPoint | None = None,
) -> P:
    """Like ``open_adapter``, with the factory at hand, and the entry point where it has one."""
    inner = AsyncExitStack()
    try:
        adapter: Any = await inner.enter_async_context(factory(context))
    except GglibError:
        raise
    except (Exception, SystemExit) as error:
        raise AdapterError(group, name, _described(error) + _from(entry)) from error
    stack.push_async_exit(_Leaving(inner, group, name, context))
    if not isinstance(adapter, port):
        reason = f"provides a {type(adapter).__name__}, which is no {port.__name__}{_from(entry)}"
        raise AdapterError(group, name, reason)
    return adapter


class _Leaving:
    """The end of an adapter: what it raises there neither hides a result nor stops the others."""

    def __init__(
        self, inner: AsyncExitStack, group: str, name: str, context: AdapterContext
    ) -> None:
        self._inner = inner
        self._group = group
        self._name = name
        self._context = context

    async def __aenter__(self) -> None:
        """Do nothing: it has been entered."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        failure: BaseException | None = None
        swallowed = False
        try:
            swallowed = bool(await self._inner.__aexit__(kind, error, trace))
        except (Exception, SystemExit) as raised:
            # The block's own error, or a task group around it: no failure of the adapter's.
            if not _is_but(raised, error):
                failure = raised
                self._tell(f"failed while it was left: {_described(raised)}")
        if (failure is not None or swallowed) and _ended_by_adapter(error):
            # Its scope is gone and was what ended the block: there is nothing to propagate to.
            reason = "it broke off the work that it was opened for"
            if failure is not None:
                reason += f": {_described(failure)}"
            raise AdapterError(self._group, self._name, reason) from failure
        return False

    def _tell(self, reason: str) -> None:
        context = self._context
        context.events.emit(
            AdapterFailed(
                at=context.clock.now(), group=self._group, adapter_name=self._name, reason=reason
            )
        )


def _is_but(raised: BaseException, error: BaseException | None) -> bool:
    """Return whether ``raised`` is ``error``, or groups that hold nothing else."""
    if isinstance(raised, BaseExceptionGroup):
        return all(_is_but(each, error) for each in raised.exceptions)
    return raised is error


def _ended_by_adapter(error: BaseException | None) -> bool:
    """Return whether ``error`` is a cancellation that no scope around the adapter asked for."""
    if not isinstance(error, anyio.get_cancelled_exc_class()):
        return False
    return anyio.current_effective_deadline() != -math.inf


def _find(group: str, name: str) -> EntryPoint:
    found = [entry for entry in entry_points(group=group) if entry.name == name]
    if not found:
        known = ", ".join(adapter_names(group)) or "none; is gglib installed whole?"
        raise AdapterError(group, name, f"not installed; known: {known}")
    # What an upgrade left behind says the same twice: that is no conflict.
    if len({entry.value for entry in found}) > 1:
        holders = " and ".join(sorted(_shown(entry) for entry in found))
        raise AdapterError(group, name, f"registered by {holders}; uninstall one of them")
    return found[0]


def _load(entry: EntryPoint) -> AdapterFactory[Any]:
    """Return the factory that ``entry`` names.

    Raises:
        AdapterError: it cannot be loaded, or is none.
    """
    try:
        factory: Any = entry.load()
    except (Exception, SystemExit) as error:
        reason = _described(error) + _from(entry)
        raise AdapterError(entry.group, entry.name, reason) from error
    is_class = isinstance(factory, type)
    if not callable(factory) or (is_class and not hasattr(factory, "__aenter__")):
        kind = "class" if is_class else type(factory).__name__
        reason = f"{entry.value} is a {kind}, and no factory{_from(entry)}"
        raise AdapterError(entry.group, entry.name, reason)
    return factory  # type: ignore[no-any-return]


def _distribution(entry: EntryPoint) -> tuple[str | None, str | None]:
    """Return the name and version of the distribution, where its metadata tells them."""
    try:
        return (entry.dist.name, entry.dist.version) if entry.dist is not None else (None, None)
    except Exception:  # of a distribution that is half removed
        return None, None


def _shown(entry: EntryPoint) -> str:
    name, version = _distribution(entry)
    return f"{name} {version}" if name else f"an unknown distribution ({entry.value})"


def _from(entry: EntryPoint | None) -> str:
    return "" if entry is None else f" (from {_shown(entry)})"


def _described(error: BaseException) -> str:
    """Return the error, or the first of a group, in one line, whatever it makes of ``str``."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = ""
    text = text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]}…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
