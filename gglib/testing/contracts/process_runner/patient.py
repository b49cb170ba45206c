"""A runner that fails rather than hang: one that never answers is broken too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import anyio
import pytest

from gglib.domain.config import ServerConfig
from gglib.domain.device import Device
from gglib.domain.handle import ProcessHandle
from gglib.domain.health import ServerHealth
from gglib.domain.server_memory import ServerMemory
from gglib.ports.process_runner import ProcessRunner

__all__ = ["PatientRunner", "patience"]

T = TypeVar("T")


@contextmanager
def patience(promise: str, patience_s: float) -> Iterator[None]:
    """Fail with ``promise`` if the block takes longer than ``patience_s``."""
    with anyio.move_on_after(patience_s) as scope:
        yield
    if scope.cancelled_caught:
        pytest.fail(f"{promise}: not within {patience_s:g} s")


class PatientRunner(ProcessRunner):
    """Hands everything on to ``inner``, and waits ``patience_s`` for each answer."""

    def __init__(self, inner: ProcessRunner, patience_s: float) -> None:
        self.inner = inner
        self._patience_s = patience_s

    async def _answer(self, method: str, call: Awaitable[T]) -> T:
        answer: list[T] = []
        with patience(f"{method} returns", self._patience_s):
            answer.append(await call)
        return answer[0]

    async def start(self, config: ServerConfig) -> ProcessHandle:
        """See ``ProcessRunner``."""
        return await self._answer("start", self.inner.start(config))

    async def stop(self, handle: ProcessHandle) -> None:
        """See ``ProcessRunner``."""
        await self._answer("stop", self.inner.stop(handle))

    async def is_running(self, handle: ProcessHandle) -> bool:
        """See ``ProcessRunner``."""
        return await self._answer("is_running", self.inner.is_running(handle))

    async def health(self, handle: ProcessHandle) -> ServerHealth:
        """See ``ProcessRunner``."""
        return await self._answer("health", self.inner.health(handle))

    async def list_running(self) -> list[ProcessHandle]:
        """See ``ProcessRunner``."""
        return await self._answer("list_running", self.inner.list_running())

    async def devices(self) -> Sequence[Device] | None:
        """See ``ProcessRunner``."""
        return await self._answer("devices", self.inner.devices())

    async def machine_id(self) -> str | None:
        """See ``ProcessRunner``."""
        return await self._answer("machine_id", self.inner.machine_id())

    async def memory(self, handle: ProcessHandle) -> ServerMemory | None:
        """See ``ProcessRunner``."""
        return await self._answer("memory", self.inner.memory(handle))

    async def has_file(self, path: Path) -> bool:
        """See ``ProcessRunner``."""
        return await self._answer("has_file", self.inner.has_file(path))

    async def port_is_taken(self, handle: ProcessHandle) -> bool:
        """See ``ProcessRunner``."""
        return await self._answer("port_is_taken", self.inner.port_is_taken(handle))

    async def adopt(self, handle: ProcessHandle) -> None:
        """See ``ProcessRunner``."""
        await self._answer("adopt", self.inner.adopt(handle))

    async def past_servers(self, model_name: str) -> list[ProcessHandle]:
        """See ``ProcessRunner``."""
        return await self._answer("past_servers", self.inner.past_servers(model_name))

    async def wait(self, handle: ProcessHandle) -> int | None:
        """See ``ProcessRunner``."""
        return await self._answer("wait", self.inner.wait(handle))

    async def logs(
        self, handle: ProcessHandle, *, tail: int = 20, follow: bool = False
    ) -> AsyncIterator[str]:
        """See ``ProcessRunner``."""
        lines = aiter(self.inner.logs(handle, tail=tail, follow=follow))
        while (line := await self._answer("logs", anext(lines, None))) is not None:
            yield line
