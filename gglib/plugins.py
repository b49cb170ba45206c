"""Adapters, found by entry points: gglib's own register exactly as anybody's do.

A stranger's code may raise anything, at any moment: here it becomes an ``AdapterError`` that
names whose it is.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
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
    "DOWNLOADERS",
    "ENGINES",
    "ENGINE_INSTALLERS",
    "GROUPS",
    "MODEL_CATALOGS",
    "MODEL_HUBS",
    "MODEL_SOURCES",
    "MODEL_STORES",
    "PROCESS_RUNNERS",
    "PROCESS_TABLES",
    "PULL_QUEUES",
    "SERVER_CLIENTS",
    "SERVER_REGISTRIES",
    "Plugin",
    "adapter_names",
    "blamed",
    "described",
    "distribution_of",
    "enter_adapter",
    "is_fault",
    "open_adapter",
    "survey_plugins",
]

DEVICE_INVENTORIES = "gglib.device_inventories"
DOWNLOADERS = "gglib.downloaders"
ENGINES = "gglib.engines"
ENGINE_INSTALLERS = "gglib.engine_installers"
MODEL_CATALOGS = "gglib.model_catalogs"
MODEL_HUBS = "gglib.model_hubs"
MODEL_SOURCES = "gglib.model_sources"
MODEL_STORES = "gglib.model_stores"
PROCESS_RUNNERS = "gglib.process_runners"
PROCESS_TABLES = "gglib.process_tables"
PULL_QUEUES = "gglib.pull_queues"
SERVER_CLIENTS = "gglib.server_clients"
SERVER_REGISTRIES = "gglib.server_registries"

GROUPS = (
    ENGINES,
    PROCESS_RUNNERS,
    MODEL_SOURCES,
    MODEL_STORES,
    MODEL_CATALOGS,
    SERVER_REGISTRIES,
    PROCESS_TABLES,
    DEVICE_INVENTORIES,
    SERVER_CLIENTS,
    DOWNLOADERS,
    MODEL_HUBS,
    PULL_QUEUES,
    ENGINE_INSTALLERS,
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
    shadowed: bool = False
    """Whether gglib's own adapter has its name: what fails under that name is not its fault."""


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
            error, shadowed = None, False
            try:
                used = _find(group, entry.name)
                shadowed = _distribution(used)[0] == _OUR_DISTRIBUTION and used.value != entry.value
                if shadowed:
                    raise AdapterError(group, entry.name, "its name is taken by gglib's own")
                _load(used)
            except AdapterError as broken:
                error = broken
            found.append(
                Plugin(
                    group=group,
                    name=entry.name,
                    distribution=distribution,
                    version=version,
                    error=error,
                    shadowed=shadowed,
                )
            )
    return found


def distribution_of(group: str, name: str) -> tuple[str, str] | None:
    """Return the name and version of the distribution that an adapter of others is of.

    ``None`` for gglib's own, and where nothing tells.
    """
    try:
        distribution, version = _distribution(_find(group, name))
    except AdapterError:
        return None
    if distribution is None or distribution == _OUR_DISTRIBUTION:
        return None
    return distribution, str(version)


def is_fault(error: BaseException) -> bool:
    """Return whether ``error`` is the fault of the code that raised it.

    An interrupt, a generator's end and a cancellation come from outside, also within a group.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(is_fault(each) for each in error.exceptions)
    if isinstance(error, Exception | SystemExit):
        return True
    return not isinstance(error, KeyboardInterrupt | GeneratorExit) and not _is_cancellation(error)


def described(error: BaseException) -> str:
    """Return the error, or the first of a group, in one line, whatever it makes of ``str``."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    try:
        text = " ".join(str(error).split())
    except BaseException as speechless:
        if not is_fault(speechless):
            raise
        text = ""
    text = text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]}…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def blamed(group: str, name: str, *, kind: str | None = None) -> Iterator[None]:
    """Hold a call of an adapter's: what it raises is told as its own.

    ``kind`` is the name it is registered under, where it is installed.

    Raises:
        AdapterError: its code raised anything but a ``GglibError``.
        GglibError: what the adapter itself has to say.
    """
    try:
        yield
    except GglibError:
        raise
    except BaseException as error:
        if not is_fault(error):
            raise
        of = None if kind is None else distribution_of(group, kind)
        origin = "" if of is None else f" (from {' '.join(of)})"
        raise AdapterError(group, name, described(error) + origin) from error


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
        made: Any = factory(context)
        if inspect.iscoroutine(made):
            made.close()
        if (reason := _undecorated(made)) is not None:
            raise AdapterError(group, name, reason + _from(entry))
        adapter: Any = await inner.enter_async_context(made)
    except GglibError:
        raise
    except BaseException as error:
        if not is_fault(error):
            raise
        raise AdapterError(group, name, described(error) + _from(entry)) from error
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
        except BaseException as raised:
            if not is_fault(raised):
                raise
            # The block's own error, or a task group around it: no failure of the adapter's.
            if not _is_but(raised, error):
                failure = raised
                self._tell(f"failed while it was left: {described(raised)}")
        if (failure is not None or swallowed) and _ended_by_adapter(error):
            # Its scope is gone and was what ended the block: there is nothing to propagate to.
            reason = "it broke off the work that it was opened for"
            if failure is not None:
                reason += f": {described(failure)}"
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
    if error is None or not _is_cancellation(error):
        return False
    return anyio.current_effective_deadline() != -math.inf


def _is_cancellation(error: BaseException) -> bool:
    try:
        cancelled = anyio.get_cancelled_exc_class()
    except Exception:  # outside a loop nobody cancels; anyio's versions differ in what they raise
        return False
    return isinstance(error, cancelled)


def _undecorated(made: object) -> str | None:
    """Return what is wrong with what a factory returned, if it lacks its decorator."""
    if inspect.iscoroutine(made) or inspect.iscoroutinefunction(made):
        kind = "a coroutine"
    elif inspect.isasyncgen(made) or inspect.isasyncgenfunction(made):
        kind = "an async generator"
    else:
        return None
    return f"what it returns is {kind}: decorate the factory with @asynccontextmanager"


def _find(group: str, name: str) -> EntryPoint:
    found = [entry for entry in entry_points(group=group) if entry.name == name]
    if not found:
        known = ", ".join(adapter_names(group)) or "none; is gglib installed whole?"
        raise AdapterError(group, name, f"not installed; known: {known}")
    # A stranger cannot take a name from gglib's own: everybody's commands would fail.
    ours = [entry for entry in found if _distribution(entry)[0] == _OUR_DISTRIBUTION]
    found = ours or found
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
    except BaseException as error:
        if not is_fault(error):
            raise
        reason = described(error) + _from(entry)
        raise AdapterError(entry.group, entry.name, reason) from error
    is_class = isinstance(factory, type)
    if not callable(factory) or (is_class and not hasattr(factory, "__aenter__")):
        kind = "class" if is_class else type(factory).__name__
        reason = f"{entry.value} is a {kind}, and no factory{_from(entry)}"
        raise AdapterError(entry.group, entry.name, reason)
    if (undecorated := _undecorated(factory)) is not None:
        raise AdapterError(entry.group, entry.name, undecorated + _from(entry))
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
