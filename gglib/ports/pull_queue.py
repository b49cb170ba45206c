"""Pulls on record: a queue that outlives every process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager

from gglib.domain.pull import Pull

__all__ = ["PullQueue"]


class PullQueue(ABC):
    """Keeps pulls. Every call is one transaction, durable when it returns; processes share it."""

    __slots__ = ()

    @abstractmethod
    async def add(self, pull: Pull) -> Pull:
        """Keep ``pull``, unless one that has not ended fetches the same; return whichever is kept.

        The same is: ``Pull.fetches_the_same_as``.
        """

    @abstractmethod
    async def get(self, pull_id: str) -> Pull | None:
        """Return the pull, or ``None``."""

    @abstractmethod
    async def list(self) -> list[Pull]:
        """Return all pulls, the oldest first."""

    @abstractmethod
    async def edit(self, pull_id: str, change: Callable[[Pull], Pull]) -> Pull | None:
        """Replace the pull by what ``change`` makes of it, in one transaction, and return that.

        ``change`` may be called in another thread. ``None``: there is no such pull.
        """

    @abstractmethod
    async def remove(self, pull_id: str) -> None:
        """Forget the pull; does nothing if there is none."""

    @abstractmethod
    def fetching(self) -> AbstractContextManager[bool]:
        """Hold the right to fetch for the block, if nobody else does: ``True``; else ``False``.

        Of all processes on one data directory, one has it; it ends with its process, however
        that ends. Never waits. Enter and leave it in one thread.
        """
