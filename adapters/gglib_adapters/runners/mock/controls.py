"""What a test does to a mock runner, and learns from it, in whatever thread it runs."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from gglib.domain.config import ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.domain.health import ServerHealth
from gglib.domain.server_props import ServerProps
from gglib.errors import NotConfigured, NotRunning
from gglib.ports.clock import Clock
from gglib_adapters.runners.mock.calls import MockCall
from gglib_adapters.runners.mock.engine_server import MockEngineServer
from gglib_adapters.runners.mock.script import MockScript
from gglib_adapters.runners.mock.scripts import Scripts
from gglib_adapters.runners.mock.world import MockServer, MockWorld

__all__ = ["MockControls"]


class MockControls:
    """The half of a mock runner that its test sees. Safe in any thread."""

    def __init__(
        self, scripts: Sequence[MockScript], clock: Clock, world: MockWorld, *, sockets: bool
    ) -> None:
        self.calls: list[MockCall] = []
        """Every call of a method of the port, oldest first."""
        self._clock = clock
        self._world = world
        self._sockets = sockets
        self._scripts = Scripts(scripts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def sockets(self) -> bool:
        """Whether its servers listen."""
        return self._sockets

    @property
    def clock(self) -> Clock:
        """The clock that its servers live by."""
        return self._clock

    @property
    def running(self) -> list[ProcessHandle]:
        """The servers that run, oldest first; unlike ``list_running`` this is not recorded."""
        return [server.handle for server in self._world.running()]

    @property
    def called(self) -> list[str]:
        """The starts and stops that were asked for, as ``"start qwen"``, oldest first."""
        return [
            f"{call.method} {call.model_name}"
            for call in self.calls
            if call.method in ("start", "stop")
        ]

    def starts(self, model_name: str | None = None) -> list[ServerConfig]:
        """Return what was asked to start, of one model or of all, whether or not it did."""
        return [
            call.config
            for call in self.calls
            if call.config is not None and model_name in (None, call.model_name)
        ]

    def script(self, model_name: str, *scripts: MockScript) -> None:
        """Say what the next starts of a model do; the last one repeats.

        Without ``scripts``, what holds for all models holds for it again, from the beginning.
        """
        self._scripts.set(model_name, scripts)

    def crash(
        self,
        which: ProcessHandle | str,
        exit_status: int | None = None,
        lines: Sequence[str] | None = None,
    ) -> None:
        """End a server, or all of a model, as if by itself; whoever waits for it is told.

        ``lines`` are its last output. By default both are what its script says of a crash.

        Raises:
            NotRunning: there is none that runs.
        """
        for server in self._running(which):
            server.course.crash(exit_status, None if lines is None else tuple(lines))
            server.look()

    def say(self, which: ProcessHandle | str, line: str) -> None:
        """Let a server, or all of a model, print a line.

        Raises:
            NotRunning: there is none that runs.
        """
        for server in self._running(which):
            server.course.say(line)

    def set_health(self, which: ProcessHandle | str, health: ServerHealth | None) -> None:
        """Let a server, or all of a model, answer every health check so, until ``None``.

        Raises:
            NotRunning: there is none that runs.
        """
        for server in self._running(which):
            server.course.set_health(health)

    def engine_server(self, which: ProcessHandle | str) -> MockEngineServer:
        """Return what answers for a server, or for the newest of a model, running or past.

        Raises:
            NotRunning: it never ran.
            NotConfigured: this runner's servers have no sockets.
        """
        if isinstance(which, str):
            name, server = which, self._world.newest(which)
        else:
            name, server = which.model_name, self._world.find(which)
        if server is None:
            raise NotRunning(name)
        if server.engine is None:
            raise NotConfigured("the mock runner's socket", "make it with sockets=True")
        return server.engine

    def props(self, base_url: str) -> ServerProps:
        """Return what the running server at that address says of itself; none runs: nothing."""
        for server in self._world.running():
            if server.handle.base_url == base_url.rstrip("/"):
                course = server.course
                return ServerProps(slots_total=course.slots_total, context_size=course.context_size)
        return ServerProps()

    def close(self) -> None:
        """Kill every server of its world at once, and close their sockets."""
        for server in self._world.running():
            server.course.kill()
            server.look()

    def _running(self, which: ProcessHandle | str) -> list[MockServer]:
        if isinstance(which, str):
            found = [
                server for server in self._world.running() if server.handle.model_name == which
            ]
            name = which
        else:
            server = self._world.find(which)
            found = [server] if server is not None and server.look() else []
            name = which.model_name
        if not found:
            raise NotRunning(name)
        return found

    def _record(
        self,
        method: str,
        handle: ProcessHandle | None = None,
        *,
        model_name: str | None = None,
        config: ServerConfig | None = None,
    ) -> None:
        server_id = config.server_id if config is not None else None
        if handle is not None:
            model_name, server_id = handle.model_name, handle.server_id
        self.calls.append(
            MockCall(
                method=method,
                at=self._clock.monotonic(),
                model_name=model_name,
                server_id=server_id,
                config=config,
            )
        )
