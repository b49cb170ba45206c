"""The processes of this machine: who lives, and who listens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

__all__ = ["ProcessIdentity", "ProcessTable"]


class ProcessIdentity(NamedTuple):
    """One process, for ever: the pid alone is reused. Times are Unix seconds."""

    node: str
    pid: int
    process_started_at: float


class ProcessTable(ABC):
    """Looks, and never touches. Quick enough for an event loop, except where it says so."""

    __slots__ = ()

    @abstractmethod
    def identity(self) -> ProcessIdentity:
        """Return who this process is."""

    @abstractmethod
    def is_alive(self, node: str, pid: int, process_started_at: float) -> bool:
        """Return whether that very process lives; a zombie does not.

        A process of another node counts as alive: nothing here can tell.
        """

    @abstractmethod
    def holder_of_port(self, port: int) -> str | None:
        """Return who listens on TCP ``port``, as ``name (pid N)``; ``None`` if nobody does.

        May take tens of milliseconds: call it from a worker thread.
        """

    def memory_bytes(self, pid: int) -> int | None:
        """Return the resident memory of a process of this machine and all its descendants, now.

        In bytes of RAM: what is swapped out, and an accelerator's memory, is not in it. Pages
        of a file, or shared ones, that several of these processes have mapped count once;
        those that other processes have mapped too count in full. ``None``: there is no such
        process, or nothing here can tell.

        May take tens of milliseconds, more with a large model: call it from a worker thread.
        """
        del pid
        return None

    def own_memory_bytes(self, pid: int) -> int | None:
        """Return the part of ``memory_bytes`` that no file backs.

        That is what the system gets back only when these processes end: pages of a mapped
        file it can have at any time, and counts as available. ``None`` and time: as there.
        """
        del pid
        return None
