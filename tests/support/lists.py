"""Ports that are lists: servers that exist on paper only."""

from __future__ import annotations

from gglib.domain.config import ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.domain.health import ServerHealth
from gglib.domain.ownership import ServerRecord
from gglib.errors import NotRunning, StopFailed
from gglib.ports.process_runner import ProcessRunner
from gglib.ports.server_registry import ServerRegistry

__all__ = ["ListRegistry", "ListRunner"]


class ListRegistry(ServerRegistry):
    """Records in memory."""

    def __init__(self, *records: ServerRecord) -> None:
        self.rows = {record.server_id: record for record in records}

    async def put(self, record: ServerRecord) -> None:
        self.rows[record.server_id] = record

    async def get(self, server_id: str) -> ServerRecord | None:
        return self.rows.get(server_id)

    async def list(self) -> list[ServerRecord]:
        return list(self.rows.values())

    async def remove(self, server_id: str) -> None:
        self.rows.pop(server_id, None)


class ListRunner(ProcessRunner):
    """A runner whose servers are a list; those in ``immortal`` survive every stop."""

    def __init__(self, *handles: ProcessHandle) -> None:
        self.running = list(handles)
        self.immortal: set[str] = set()

    async def start(self, config: ServerConfig) -> ProcessHandle:
        raise AssertionError("nothing is started here")

    async def stop(self, handle: ProcessHandle) -> None:
        if handle not in self.running:
            raise NotRunning(handle.model_name)
        if handle.server_id in self.immortal:
            raise StopFailed(handle.model_name, (1,))
        self.running.remove(handle)

    async def is_running(self, handle: ProcessHandle) -> bool:
        return handle in self.running

    async def health(self, handle: ProcessHandle) -> ServerHealth:
        raise AssertionError("nobody's health is asked for here")

    async def list_running(self) -> list[ProcessHandle]:
        return list(self.running)
