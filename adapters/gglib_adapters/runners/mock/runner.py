"""A runner without processes: deterministic, scripted, and under a clock of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from copy import copy
from pathlib import Path

from anyio.lowlevel import checkpoint

from gglib.domain.config import ServerConfig
from gglib.domain.device import Device
from gglib.domain.handle import ProcessHandle
from gglib.domain.health import ServerHealth
from gglib.domain.server_memory import ServerMemory
from gglib.errors import NodeUnreachable, NotRunning, StopFailed
from gglib.ports.clock import Clock
from gglib.ports.far_files import FarFiles
from gglib.ports.process_runner import ProcessRunner
from gglib_adapters.runners.mock.clock import FakeClock
from gglib_adapters.runners.mock.controls import MockControls
from gglib_adapters.runners.mock.course import Course
from gglib_adapters.runners.mock.script import MockScript
from gglib_adapters.runners.mock.sockets import open_engine_server
from gglib_adapters.runners.mock.world import MockWorld

__all__ = ["MockRunner"]

_LOOK_AGAIN_S = 0.05


class MockRunner(MockControls, ProcessRunner):
    """Keeps every promise of the port with servers that exist on paper.

    A server's state follows from its script and the clock alone; nothing runs in the
    background::

        runner = MockRunner(MockScript(load_s=2.0))
        runner.script("qwen", MockScript(start_error=StartFailed("qwen", 1)), MockScript())

    ``scripts`` say what the successive starts of a model do, for each model anew; the last one
    repeats, and without any every server is ready at once. ``clock``: by default a
    ``FakeClock`` of its own, which stands still until it is advanced. With ``sockets`` each
    server answers as a ``MockEngineServer`` on its handle's port, from its start to its end.
    ``stop_grace_s``: how long a server is asked to stop before it is killed. Runners of the
    same ``world`` see and stop each other's servers, as two processes of gglib over one data
    directory do; by default each has a world of its own. As a context manager it is closed.

    ``script``, ``crash``, ``say``, ``set_health``, ``close`` and all that reports may be
    called from any thread, while the runner is used in another.
    """

    def __init__(
        self,
        *scripts: MockScript,
        clock: Clock | None = None,
        sockets: bool = False,
        stop_grace_s: float = 10.0,
        name: str = "MockRunner",
        node: str = "mock",
        world: MockWorld | None = None,
    ) -> None:
        super().__init__(scripts, clock or FakeClock(), world or MockWorld(), sockets=sockets)
        self.missing_files: set[Path] = set()
        """The files that ``has_file`` says are not there."""
        self.far_devices: Sequence[Device] | NodeUnreachable | None = None
        """What ``devices`` returns, or raises."""
        self.far_machine: str | None = None
        """What ``machine_id`` returns."""
        self.far_memory: dict[str, ServerMemory] = {}
        """What ``memory`` returns, by server id."""
        self.far_files: FarFiles | None = None
        """What ``files`` is."""
        self.away: NodeUnreachable | None = None
        """Why its machine cannot be reached; its servers run on meanwhile. ``None``: it can."""
        self._stop_grace_s = stop_grace_s
        self._name = name
        self._node = node

    @property
    def name(self) -> str:
        """The name that its handles carry."""
        return self._name

    async def start(self, config: ServerConfig) -> ProcessHandle:
        """Start a server as the model's next script says; see the port."""
        self._record("start", model_name=config.model_name, config=config)
        self._reach()
        script = self._scripts.next(config.model_name)
        with self._world.promise(config.port):
            await self._clock.sleep(script.start_delay_s)
            if script.start_error is not None:
                # An error that is raised over and over would gather its tracebacks.
                raise copy(script.start_error)
            return self._spawn(config, script)

    async def stop(self, handle: ProcessHandle) -> None:
        """End the server as its script says; see the port."""
        self._record("stop", handle)
        self._reach()
        server = self._world.find(handle)
        if server is None or (not server.look() and not server.stops):
            raise NotRunning(handle.model_name)
        server.stops += 1
        try:
            # From here on its end is fixed, whether or not anybody waits for it.
            patience_ends = server.course.ask_to_stop(self._stop_grace_s)
            await server.course.until(patience_ends)
        finally:
            server.stops -= 1
            running = server.look()
        if running:
            raise StopFailed(handle.model_name, (server.handle.pid or 0,))

    async def is_running(self, handle: ProcessHandle) -> bool:
        """Return whether a server with this identity runs."""
        self._record("is_running", handle)
        await checkpoint()
        self._reach()
        return self._runs(handle)

    async def health(self, handle: ProcessHandle) -> ServerHealth:
        """Return how the server is, by its script and the clock; see the port."""
        self._record("health", handle)
        if self.away is not None:
            await checkpoint()
            return ServerHealth.unhealthy(str(self.away), is_out_of_reach=True)
        server = self._world.find(handle)
        if server is None or not server.look():
            raise NotRunning(handle.model_name)
        await self._clock.sleep(server.course.script.health_delay_s)
        if not server.look():
            raise NotRunning(handle.model_name)
        return server.course.check()

    async def list_running(self) -> list[ProcessHandle]:
        """Return the running servers of its world, oldest first."""
        self._record("list_running")
        await checkpoint()
        self._reach()
        return [server.handle for server in self._world.running()]

    async def devices(self) -> Sequence[Device] | None:
        """Return ``far_devices``, or raise it."""
        self._record("devices")
        await checkpoint()
        self._reach()
        if isinstance(self.far_devices, NodeUnreachable):
            raise copy(self.far_devices)
        return self.far_devices

    async def machine_id(self) -> str | None:
        """Return ``far_machine``."""
        self._record("machine_id")
        await checkpoint()
        return self.far_machine

    async def memory(self, handle: ProcessHandle) -> ServerMemory | None:
        """Return what ``far_memory`` says of the server."""
        self._record("memory", handle)
        await checkpoint()
        return self.far_memory.get(handle.server_id)

    @property
    def files(self) -> FarFiles | None:
        """See the port."""
        return self.far_files

    async def has_file(self, path: Path) -> bool:
        """Return whether ``path`` is not among ``missing_files``."""
        self._record("has_file")
        await checkpoint()
        self._reach()
        return path not in self.missing_files

    async def adopt(self, handle: ProcessHandle) -> None:
        """Take over a running server; see the port."""
        self._record("adopt", handle)
        await checkpoint()
        self._reach()
        if not self._runs(handle):
            raise NotRunning(handle.model_name)

    async def way_to(self, handle: ProcessHandle) -> NodeUnreachable | None:
        """Return ``away``."""
        self._record("way_to", handle)
        await checkpoint()
        return self.away

    async def logs(
        self, handle: ProcessHandle, *, tail: int = 20, follow: bool = False
    ) -> AsyncIterator[str]:
        """Yield the last lines of the server's output, then new ones while it runs."""
        self._record("logs", handle)
        await checkpoint()
        server = self._world.find(handle)
        if server is None:
            return
        course = server.course
        seen = max(0, len(course.output) - max(0, tail))
        while True:
            # The last lines are there when it has ended: look at the end first.
            final = not follow or course.ended
            news = course.output[seen:]
            for line in news:
                yield line
            seen += len(news)
            if final:
                return
            await course.until(lines=seen)

    async def past_servers(self, model_name: str) -> list[ProcessHandle]:
        """Return the model's ended servers, newest first: all output is kept."""
        self._record("past_servers", model_name=model_name)
        await checkpoint()
        return [server.handle for server in self._world.past(model_name)]

    async def wait(self, handle: ProcessHandle) -> int | None:
        """Return the exit status when the server has ended; see the port."""
        self._record("wait", handle)
        server = self._world.find(handle)
        if server is None:
            await checkpoint()
            return None
        await server.course.until()
        while self.away is not None:
            # Nobody is there to tell of its end.
            await self._clock.sleep(_LOOK_AGAIN_S)
        server.look()
        return server.course.exit_status

    def _reach(self) -> None:
        if self.away is not None:
            # An error that is raised over and over would gather its tracebacks.
            raise copy(self.away)

    def _spawn(self, config: ServerConfig, script: MockScript) -> ProcessHandle:
        # No checkpoint from here to the return: a cancelled start has done all of it, or nothing.
        with self._world.lock:
            course = Course(script, config, self._clock)
            engine = None
            if self._sockets:
                engine = open_engine_server(self._world, config, script, course)
                port = engine.port
            else:
                port = config.port or next(self._world.free_ports(config.base_port))
            server = self._world.add(
                config,
                course,
                engine,
                runner=self._name,
                node=self._node,
                port=port,
                now=self._clock.now(),
            )
        return server.handle

    def _runs(self, handle: ProcessHandle) -> bool:
        server = self._world.find(handle)
        return server is not None and server.look()
