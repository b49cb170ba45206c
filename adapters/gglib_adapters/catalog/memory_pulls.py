"""The queue of pulls in memory: for tests, and for those who want no database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from anyio.lowlevel import checkpoint

from gglib.domain.pull import Pull
from gglib.ports.context import AdapterContext
from gglib.ports.pull_queue import PullQueue

__all__ = ["MemoryPullQueue", "open_memory_pull_queue"]


@asynccontextmanager
async def open_memory_pull_queue(context: AdapterContext) -> AsyncIterator[PullQueue]:
    """Open an empty queue; no other opening sees its pulls."""
    del context
    yield MemoryPullQueue()


class MemoryPullQueue(PullQueue):
    """Pulls in a dictionary. Safe for any number of tasks, not for threads."""

    __slots__ = ("_held", "_pulls")

    def __init__(self) -> None:
        self._pulls: dict[str, Pull] = {}
        self._held = False

    async def add(self, pull: Pull) -> Pull:
        """Keep ``pull``, or find the one that does the same; see the port."""
        await checkpoint()
        for other in self._sorted():
            if not other.state.ended and other.fetches_the_same_as(pull):
                return other
        self._pulls[pull.id] = pull
        return pull

    async def get(self, pull_id: str) -> Pull | None:
        """Return the pull, or ``None``."""
        await checkpoint()
        return self._pulls.get(pull_id)

    async def list(self) -> list[Pull]:
        """Return all pulls, the oldest first."""
        await checkpoint()
        return list(self._sorted())

    async def edit(self, pull_id: str, change: Callable[[Pull], Pull]) -> Pull | None:
        """Replace the pull by what ``change`` makes of it; see the port."""
        await checkpoint()
        if pull_id in self._pulls:
            self._pulls[pull_id] = change(self._pulls[pull_id])
        return self._pulls.get(pull_id)

    async def remove(self, pull_id: str) -> None:
        """Forget the pull; does nothing if there is none."""
        await checkpoint()
        self._pulls.pop(pull_id, None)

    @contextmanager
    def fetching(self) -> Iterator[bool]:
        """Hold the right to fetch, if nobody does; see the port."""
        if self._held:
            yield False
            return
        self._held = True
        try:
            yield True
        finally:
            self._held = False

    def _sorted(self) -> Iterator[Pull]:
        return (self._pulls[pull_id] for pull_id in sorted(self._pulls))
