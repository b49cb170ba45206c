"""Where servers live: this machine, another one, a cluster, or nowhere at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from gglib.domain.config import ServerConfig
from gglib.domain.device import Device
from gglib.domain.handle import ProcessHandle
from gglib.domain.health import ServerHealth
from gglib.domain.server_memory import ServerMemory
from gglib.domain.way_step import WayStep
from gglib.errors import NodeUnreachable, NotRunning
from gglib.ports.engine import Engine
from gglib.ports.far_files import FarFiles

if TYPE_CHECKING:
    from gglib.ports.context import EngineSet

__all__ = ["ProcessRunner"]


class ProcessRunner(ABC):
    """Starts, watches and stops servers. Intent in, no shell concerns in the signatures.

    A server's identity is ``config.server_id`` when the configuration carries one
    (``GGLIB_SERVER_ID`` in its environment), else a new one. Methods may be called
    concurrently, for the same server too. Cancelling ``start`` leaves nothing running;
    cancelling ``stop`` leaves the server stopped or on its way, never half-known.
    """

    __slots__ = ()

    @abstractmethod
    async def start(self, config: ServerConfig) -> ProcessHandle:
        """Start a server and return as soon as its process exists; it need not be ready.

        Uses ``config.port``; else looks for a free one from ``config.base_port`` on; else
        lets the system assign one.

        Raises:
            StartFailed: the process could not be created.
            PortInUse: ``config.port`` is taken.
            EngineNotFound, EngineCannot: there is no command line for this intent.
        """

    @abstractmethod
    async def stop(self, handle: ProcessHandle) -> None:
        """End the server and everything it started; return when it is gone and its port closed.

        Asks first, and kills after a grace time. A server that is still starting is
        stopped as well. Of two concurrent calls both return.

        Raises:
            NotRunning: it is not running; nothing was changed. A process that merely has
                the same pid is not touched.
            StopFailed: it could not be killed.
        """

    @abstractmethod
    async def is_running(self, handle: ProcessHandle) -> bool:
        """Return whether the process with this identity exists (ready or not)."""

    @abstractmethod
    async def health(self, handle: ProcessHandle) -> ServerHealth:
        """Ask the server how it is, once.

        A server that is loading, or not listening yet, or whose port somebody else holds,
        is unhealthy with a message, never an exception.

        Raises:
            NotRunning: the process does not exist.
        """

    @abstractmethod
    async def list_running(self) -> list[ProcessHandle]:
        """Return every running server of this runner and data directory, oldest first.

        Includes those that an earlier process of gglib started.
        """

    async def devices(self) -> Sequence[Device] | None:
        """Return the memory of the machine where its servers run, read now or a moment ago.

        ``None`` = they run on this machine, whose inventory counts: always, or never. Named as
        by a ``DeviceInventory``, the machine's own memory first; gglib puts the runner's name
        before them. Empty = somebody else sees to the memory there: nothing is held to a budget.

        Raises:
            NodeUnreachable: there is nobody to ask.
        """
        return None

    async def machine_id(self) -> str | None:
        """Return what the machine where its servers run has alone, until it is started anew.

        The kernel's boot id, where there is one. Runners whose machines tell the same share
        one machine's memory, and those that tell what this machine's inventory tells share this
        one's. ``None`` = not told: the memory is held to be nobody else's.

        Raises:
            NodeUnreachable: there is nobody to ask.
        """
        return None

    async def memory(self, handle: ProcessHandle) -> ServerMemory | None:
        """Return what the server and all that it started have of the memory where it runs.

        Read now or a moment ago. ``None`` = it does not run, or nothing can tell. Not asked of
        runners whose servers run on this machine (``devices`` is ``None``): it looks itself.

        Raises:
            NodeUnreachable: there is nobody to ask.
        """
        del handle
        return None

    @property
    def files(self) -> FarFiles | None:
        """The files that its servers find; ``None`` = those of this machine, or not told."""
        return None

    async def engine_there(self, engines: EngineSet, name: str | None) -> Engine | None:
        """Return the engine ``name`` as it is where this runner's servers run.

        Without a name, the one that is meant there by default. ``None`` = servers run with the
        engines of this machine.

        Raises:
            EngineNotFound, EngineCannot: it is not there.
            AdapterError: it is broken.
            NodeUnreachable: there is nobody to ask.
        """
        del engines, name
        return None

    async def has_file(self, path: Path) -> bool:
        """Return whether a server would find ``path`` where it runs.

        Runners that cannot tell say yes: the engine will say what it misses.
        """
        del path
        return True

    async def port_is_taken(self, handle: ProcessHandle) -> bool:
        """Return whether somebody else has the port of a server that has ended.

        Then it may have ended for want of its port, and is worth another start on another
        one. Runners that cannot tell say no: the server's last lines may tell.
        """
        del handle
        return False

    async def examine(self, model_files: Sequence[Path]) -> list[WayStep]:
        """Go the way to where servers run, step by step, and say how far it leads.

        The steps after one that does not work are left out. ``model_files``: what has to be
        there. Runners of this machine have no way to go and return nothing. Nothing is raised.
        """
        del model_files
        return []

    async def way_to(self, handle: ProcessHandle) -> NodeUnreachable | None:
        """Return why there is no way to the server now; ``None`` = there is one.

        One that was cut a moment ago is waited for: seconds. Nothing is raised.
        """
        del handle
        return None

    async def adopt(self, handle: ProcessHandle) -> None:
        """Take over a running server that an earlier process started.

        Raises:
            NotRunning: no process has this identity.
        """
        if not await self.is_running(handle):
            raise NotRunning(handle.model_name)

    async def logs(
        self, handle: ProcessHandle, *, tail: int = 20, follow: bool = False
    ) -> AsyncIterator[str]:
        """Yield the last ``tail`` lines of the server's output, then new ones while it runs.

        Works for stopped servers as long as their output is kept. Runners without
        output yield nothing.
        """
        del handle, tail, follow
        nothing: tuple[str, ...] = ()
        for line in nothing:
            yield line

    async def past_servers(self, model_name: str) -> list[ProcessHandle]:
        """Return servers of a model that have ended and whose output is kept, newest first.

        Their handles are good for ``logs`` alone. Runners that keep nothing return nothing.
        """
        del model_name
        return []

    async def wait(self, handle: ProcessHandle) -> int | None:
        """Return when the server is not running: its exit status, negative for a signal.

        ``None`` where the status cannot be known (an adopted process). Returns at once
        for a server that is gone.
        """
        while await self.is_running(handle):  # noqa: ASYNC110 - the port has no event for it
            await anyio.sleep(0.05)
        return None
