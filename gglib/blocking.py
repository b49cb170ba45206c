"""gglib for code without ``async``: ``with gglib.blocking.open() as lib``.

The same library, run by an event loop in a thread of its own. Any thread may use it but that
one, where event sinks are called. Ctrl-C while a call waits calls that call off, and leaves
nothing of it behind. What is still open when the library is closed is closed with it.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future, wait
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from functools import partial, wraps
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from gglib.domain.model import Model
from gglib.library import Library, open_library
from gglib.services.models import ModelService
from gglib.services.pool import EvictionCallback
from gglib.services.routing.router import Lease
from gglib.services.serving import RunningServer

__all__ = ["BlockingLibrary", "BlockingModels", "open"]

P = ParamSpec("P")
T = TypeVar("T")


class BlockingModels:
    """The models by name, as ``ModelService`` has them; calls return when they are done."""

    def __init__(self, models: ModelService, loop: _Loop) -> None:
        self.add = loop.blocking(models.add)
        self.add_aliases = loop.blocking(models.add_aliases)
        self.add_tags = loop.blocking(models.add_tags)
        self.configure = loop.blocking(models.configure)
        self.import_models = loop.blocking(models.import_models)
        self.list = loop.blocking(models.list)
        self.remove = loop.blocking(models.remove)
        self.remove_aliases = loop.blocking(models.remove_aliases)
        self.remove_profile = loop.blocking(models.remove_profile)
        self.remove_tags = loop.blocking(models.remove_tags)
        self.rename = loop.blocking(models.rename)
        self.resolve = loop.blocking(models.resolve)
        self.scan = loop.blocking(models.scan)
        self.set_profile = loop.blocking(models.set_profile)
        self.verify = loop.blocking(models.verify)


class BlockingLibrary:
    """Models and servers of one data directory, in this process. See ``gglib.Library``.

    Raises:
        RuntimeError: by every use after it was closed.
    """

    def __init__(self, library: Library, loop: _Loop) -> None:
        self._library = library
        self._loop = loop
        self.models = BlockingModels(library.models, loop)
        """The models by name: ``add``, ``scan``, ``list``, ``resolve``, ``configure`` and more."""

    @property
    def servers(self) -> tuple[RunningServer, ...]:
        """The servers that this library runs now, oldest first."""
        self._loop.check_open()
        return self._library.servers

    def serve(
        self, model: Model | str, *, engine: str | None = None, **overrides: Any
    ) -> AbstractContextManager[RunningServer]:
        """Serve ``model`` for the block: ready inside, stopped after it. See ``Library.serve``."""
        return _Block(self._library.serve(model, engine=engine, **overrides), self._loop)

    def lease(self, model: Model | str) -> AbstractContextManager[Lease]:
        """Hold the right to send a request to ``model``, for the block. See ``Library.lease``."""
        return _Block(self._library.lease(model), self._loop)

    def on_evicted(self, callback: EvictionCallback) -> None:
        """Be told when a leased model's server is gone. See ``Library.on_evicted``.

        ``callback`` is called in the library's own thread, which must not use the library.
        """
        self._loop.check_open()
        self._library.on_evicted(callback)


def _opener(
    opener: Callable[P, AbstractAsyncContextManager[Library]],
) -> Callable[P, AbstractContextManager[BlockingLibrary]]:
    @wraps(opener)
    def open_(*args: P.args, **kwargs: P.kwargs) -> AbstractContextManager[BlockingLibrary]:
        return _Opened(opener(*args, **kwargs))

    open_.__doc__ = _OPEN
    return open_


_OPEN = """Open gglib for the block, as ``gglib.open`` does: the same arguments, the same errors."""

open = _opener(open_library)


class _Opened(AbstractContextManager[BlockingLibrary]):
    """A library, and the loop that it lives in."""

    def __init__(self, manager: AbstractAsyncContextManager[Library]) -> None:
        self._loop = _Loop()
        self._block = _Block(manager, self._loop)

    def __enter__(self) -> BlockingLibrary:
        self._loop.start()
        try:
            library = self._block.__enter__()
        except BaseException:
            self._loop.stop()
            raise
        # One that nobody leaves is left at the interpreter's end, while its thread is there.
        atexit.register(self._leave)
        return BlockingLibrary(library, self._loop)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        atexit.unregister(self._leave)
        try:
            self._loop.close_blocks(but=self._block)
            return self._block.__exit__(kind, error, traceback)
        finally:
            self._loop.stop()

    def _leave(self) -> None:
        self.__exit__(None, None, None)


class _Loop:
    """An event loop in a thread of its own, and the blocks that are open in it."""

    def __init__(self) -> None:
        self.blocks: dict[_Block[Any], None] = {}
        self._manager: AbstractContextManager[BlockingPortal] | None = None
        self._portal: BlockingPortal | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: int | None = None

    def start(self) -> None:
        """Start the thread; return when it takes calls."""
        if self._manager is not None:
            raise RuntimeError("this library was opened before; call gglib.blocking.open() again")
        self._manager = start_blocking_portal("asyncio")
        portal = self._manager.__enter__()
        self._loop = portal.call(asyncio.get_running_loop)
        self._thread = portal.call(threading.get_ident)
        self._portal = portal

    def stop(self) -> None:
        """End the thread; what still runs in it is cancelled."""
        self._portal = None
        if self._manager is not None:
            self._manager.__exit__(None, None, None)

    def check_open(self) -> BlockingPortal:
        """Return the portal; raise ``RuntimeError`` where the library cannot be used."""
        if self._portal is None:
            raise RuntimeError("the library is closed")
        if threading.get_ident() == self._thread:
            raise RuntimeError("the library's own thread, as of an event sink, cannot wait")
        return self._portal

    def signal(self, callback: Callable[[], None]) -> None:
        """Have the loop call ``callback`` soon; wait for nothing."""
        assert self._loop is not None
        try:
            with suppress(RuntimeError):  # a loop that has ended has ended everything in it
                self._loop.call_soon_threadsafe(callback)
        except BaseException:
            # Interrupted before it was passed on, or after: twice is as good as once.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(callback)
            raise

    def close_blocks(self, *, but: _Block[Any]) -> None:
        """Call off every block but one, the innermost first; return when they are left."""
        blocks = [block for block in reversed(self.blocks) if block is not but]
        for block in blocks:
            block.call_off()
        for block in blocks:
            _wait(block.ended)

    def blocking(self, function: Callable[P, Awaitable[T]]) -> Callable[P, T]:
        """Return ``function`` for threads: it returns when it is done."""

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            running = _Call(partial(function, *args, **kwargs))
            future = self.check_open().start_task_soon(running.run)
            try:
                wait([future])
            except BaseException:
                self.signal(running.call_off)
                wait([future])
                raise
            return future.result()

        return call


class _Call(Generic[T]):
    """One call that can be called off."""

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self._function = function
        self._scope: anyio.CancelScope | None = None

    async def run(self) -> T:
        with anyio.CancelScope() as self._scope:
            return await self._function()
        raise CancelledError

    def call_off(self) -> None:
        if self._scope is not None:
            self._scope.cancel()


class _Block(AbstractContextManager[T], Generic[T]):
    """An async context manager, entered and left in one task of the loop."""

    def __init__(self, manager: AbstractAsyncContextManager[T], loop: _Loop) -> None:
        self._manager = manager
        self._loop = loop
        self._entered: Future[T] = Future()
        self.ended: Future[bool] = Future()
        """Set when the manager was left: whether it swallowed the block's error."""
        self._used = False
        self._leaving = asyncio.Event()
        self._called_off = False
        self._scope: anyio.CancelScope | None = None
        self._error: Exception | None = None

    def __enter__(self) -> T:
        portal = self._loop.check_open()
        if self._used:
            raise RuntimeError("this block was entered before; make another one")
        self._used = True
        try:
            portal.start_task_soon(self._run)
            wait([self._entered])
            return self._entered.result()
        except BaseException:
            if not self.ended.done():
                self.call_off()
                _wait(self.ended)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        # A KeyboardInterrupt would end the loop, and a coroutine cannot raise StopIteration:
        # the manager is left without them, and they go on here.
        if isinstance(error, Exception) and not isinstance(error, StopIteration):
            self._error = error
        self._loop.signal(self._leaving.set)
        _wait(self.ended)
        failure = self.ended.exception()
        if failure is None:
            return self.ended.result()
        if failure is error:
            return False
        raise failure

    def call_off(self) -> None:
        """Cancel what the block does, and leave it; may be called from any thread."""
        self._loop.signal(self._cancel)

    def _cancel(self) -> None:
        self._called_off = True
        if self._scope is not None:
            self._scope.cancel()

    async def _run(self) -> None:
        self._loop.blocks[self] = None
        try:
            swallowed = await self._hold()
        except BaseException as error:
            # Not raised here: it is the caller's, and the loop is not to end by it.
            self._end(error)
            if not isinstance(error, Exception):
                raise
        else:
            self._end(None, swallowed=swallowed)
        finally:
            del self._loop.blocks[self]

    async def _hold(self) -> bool:
        with anyio.CancelScope() as self._scope:
            if self._called_off:
                self._scope.cancel()
            async with self._manager as value:
                self._entered.set_result(value)
                await self._leaving.wait()
                if self._error is not None:
                    raise self._error
            return self._error is not None
        return False

    def _end(self, error: BaseException | None, *, swallowed: bool = False) -> None:
        if error is not None:
            self.ended.set_exception(error)
        else:
            self.ended.set_result(swallowed)
        if not self._entered.done():
            self._entered.set_exception(error or CancelledError())


def _wait(ended: Future[bool]) -> None:
    """Return when it is done. The first Ctrl-C is raised then, the second one at once."""
    try:
        wait([ended])
    except KeyboardInterrupt:
        wait([ended])
        raise
