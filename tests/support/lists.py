"""A runner that is a list: its servers exist on paper only."""

from __future__ import annotations

from gglib.domain.config import ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.domain.health import ServerHealth
from gglib.errors import NotRunning, StopFailed
from gglib.ports.process_runner import ProcessRunner

__all__ = ["ListRunner"]


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
