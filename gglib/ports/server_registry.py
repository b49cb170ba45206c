"""Servers on record: what outlives the process that started them."""

from __future__ import annotations

from abc import ABC, abstractmethod

from gglib.domain.ownership import ServerRecord

__all__ = ["ServerRegistry"]


class ServerRegistry(ABC):
    """Keeps one record per server, from before its spawn until after its end.

    Every call is durable when it returns, so that a crash at any moment loses no server.
    Shared by processes: a record is changed by its owner, or by who stops its server.
    """

    __slots__ = ()

    @abstractmethod
    async def put(self, record: ServerRecord) -> None:
        """Write ``record``, replacing the one with its ``server_id``."""

    @abstractmethod
    async def get(self, server_id: str) -> ServerRecord | None:
        """Return the record, or ``None``."""

    @abstractmethod
    async def list(self) -> list[ServerRecord]:
        """Return all records, oldest first."""

    @abstractmethod
    async def remove(self, server_id: str) -> None:
        """Forget the record; does nothing if there is none."""
