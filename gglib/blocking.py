"""gglib for code without ``async``: ``with gglib.blocking.open() as lib``.

The same library, run by an event loop in a thread of its own. Any thread may use it. Ctrl-C
while a call waits calls that call off, and leaves nothing of it behind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import CancelledError, Future, wait
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from functools import wraps
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from gglib.domain.model import Model
from gglib.library import Library, open_library
from gglib.services.models import ModelService
from gglib.services.routing.router import Lease
from gglib.services.serving import RunningServer

__all__ = ["BlockingLibrary", "BlockingModels", "open"]

P = ParamSpec("P")
T = TypeVar("T")


class BlockingModels:
    """The models by name, as ``ModelService`` has them; calls return when they are done."""

    def __init__(self, models: ModelService, portal: BlockingPortal) -> None:
        self.add = _blocking(models.add, portal)
        self.list = _blocking(models.list, portal)
        self.remove = _blocking(models.remove, portal)
        self.resolve = _blocking(models.resolve, portal)


class BlockingLibrary:
    """Models and servers of one data directory, in this process. See ``gglib.Library``."""

    def __init__(self, library: Library, portal: BlockingPortal) -> None:
        self._library = library
        self._portal = portal
        self.models = BlockingModels(library.models, portal)
        """The models by name: ``add``, ``list``, ``resolve``, ``remove``."""

    @property
    def servers(self) -> tuple[RunningServer, ...]:
        """The servers that this library runs now, oldest first."""
        return self._library.servers

    def serve(
        self, model: Model | str, *, engine: str | None = None, **overrides: Any
    ) -> AbstractContextManager[RunningServer]:
        """Serve ``model`` for the block: ready inside, stopped after it. See ``Library.serve``."""
        return _Block(self._library.serve(model, engine=engine, **overrides), self._portal)

    def lease(self, model: Model | str) -> AbstractContextManager[Lease]:
        """Hold the right to send a request to ``model``, for the block. See ``Library.lease``."""
        return _Block(self._library.lease(model), self._portal)


def _opener(
    opener: Callable[P, AbstractAsyncContextManager[Library]],
) -> Callable[P, AbstractContextManager[BlockingLibrary]]:
    @wraps(opener)
    @contextmanager
    def open_(*args: P.args, **kwargs: P.kwargs) -> Iterator[BlockingLibrary]:
        with start_blocking_portal() as portal, _Block(opener(*args, **kwargs), portal) as library:
            yield BlockingLibrary(library, portal)

    open_.__doc__ = _OPEN
    return open_


_OPEN = """Open gglib for the block, as ``gglib.open`` does: the same arguments, the same errors."""

open = _opener(open_library)


def _blocking(function: Callable[P, Awaitable[T]], portal: BlockingPortal) -> Callable[P, T]:
    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        scope = portal.call(anyio.CancelScope)

        async def run() -> T:
            with scope:
                return await function(*args, **kwargs)
            raise AssertionError("a cancelled scope has no caller left")

        return _result(portal.start_task_soon(run), scope, portal)

    return call


def _result(future: Future[T], scope: anyio.CancelScope, portal: BlockingPortal) -> T:
    """Return what ``future`` will hold; whoever is interrupted meanwhile leaves nothing running."""
    try:
        return future.result()
    except BaseException:
        if not future.done():
            portal.call(scope.cancel)
            wait([future])
        raise


class _Block(AbstractContextManager[T], Generic[T]):
    """An async context manager, entered and left in one task of the loop."""

    def __init__(self, manager: AbstractAsyncContextManager[T], portal: BlockingPortal) -> None:
        self._manager = manager
        self._portal = portal
        self._entered: Future[T] = Future()
        self._error: BaseException | None = None

    def __enter__(self) -> T:
        self._scope = self._portal.call(anyio.CancelScope)
        self._leaving = self._portal.call(anyio.Event)
        self._left = self._portal.start_task_soon(self._hold)
        self._left.add_done_callback(self._settle)
        return _result(self._entered, self._scope, self._portal)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        # Only an Exception is raised in the loop: a KeyboardInterrupt there would end it.
        self._error = error if isinstance(error, Exception) else None
        self._portal.call(self._leaving.set)
        try:
            return _result(self._left, self._scope, self._portal)
        except BaseException as raised:
            if raised is error:
                return False
            raise

    async def _hold(self) -> bool:
        with self._scope:
            async with self._manager as value:
                self._entered.set_result(value)
                await self._leaving.wait()
                if self._error is not None:
                    raise self._error
            return self._error is not None
        return False

    def _settle(self, left: Future[bool]) -> None:
        """Tell who waits to enter how it ended, if it ended before."""
        if self._entered.done():
            return
        error = None if left.cancelled() else left.exception()
        self._entered.set_exception(error or CancelledError())
