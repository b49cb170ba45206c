"""What a model's engine has printed, wherever its server runs or ran."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import attrs

from gglib.domain.handle import ProcessHandle
from gglib.errors import NotRunning
from gglib.ports.context import RunnerSet
from gglib.ports.process_runner import ProcessRunner
from gglib.ports.server_registry import ServerRegistry

__all__ = ["ServerLogs", "ServerOutput"]


@attrs.frozen
class ServerOutput:
    """The output of one server."""

    handle: ProcessHandle
    _runner: ProcessRunner

    async def lines(self, *, tail: int, follow: bool) -> AsyncGenerator[str, None]:
        """Yield its last ``tail`` lines, and then, if asked for, new ones until it ends."""
        lines = self._runner.logs(self.handle, tail=tail, follow=follow)
        try:
            async for line in lines:
                yield line
        finally:
            # What is left in the middle ends here, not when it is collected as garbage.
            if isinstance(lines, AsyncGenerator):
                await lines.aclose()


class ServerLogs:
    """Finds the server whose output is a model's."""

    def __init__(self, registry: ServerRegistry, runners: RunnerSet) -> None:
        self._registry = registry
        self._runners = runners

    async def latest(self, model_name: str) -> ServerOutput:
        """Return the output of the model's newest server, running or not.

        Raises:
            NotRunning: it has none, and none whose output is kept.
        """
        for record in reversed(await self._registry.list()):
            if record.config.model_name == model_name and record.handle is not None:
                runner = self._runners.get(record.runner)
                if runner is not None:
                    return ServerOutput(record.handle, runner)
        for runner in self._runners.values():
            past = await runner.past_servers(model_name)
            if past:
                return ServerOutput(past[0], runner)
        raise NotRunning(model_name)
