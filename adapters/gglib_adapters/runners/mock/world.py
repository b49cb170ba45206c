"""Where mock servers live: it outlasts the runners that look into it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
from ulid import ULID

from gglib.domain.config import ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.errors import PortInUse
from gglib_adapters.runners.mock.course import Course
from gglib_adapters.runners.mock.engine_server import MockEngineServer

__all__ = ["MockServer", "MockWorld"]

_FIRST_PORT = 20_000
_LAST_PORT = 65_535
#: Linux numbers its processes up to this: no pid of ours is ever that of a real one.
_LARGEST_PID = 4_194_304


@attrs.define(eq=False)
class MockServer:
    """One server: who it is, how its life goes, and its socket if it has one."""

    handle: ProcessHandle
    course: Course
    engine: MockEngineServer | None
    stops: int = 0
    """How many calls of ``stop`` are under way."""

    def look(self) -> bool:
        """Return whether it runs. The socket of one that does not is closed."""
        if not self.course.ended:
            return True
        if self.engine is not None:
            self.engine.close()
        return False


class MockWorld:
    """The servers of all runners that are given the same world, running and past.

    Pids, ports and identities are counted, so that every run of a test has the same ones.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._servers: dict[int, MockServer] = {}
        self._running: dict[int, MockServer] = {}
        self._promised: set[int] = set()
        self._pids = itertools.count(_LARGEST_PID + 1)
        self._identities = itertools.count(1)
        self._next_port = _FIRST_PORT

    def running(self) -> list[MockServer]:
        """Return the servers that run, oldest first."""
        with self.lock:
            self._running = {pid: server for pid, server in self._running.items() if server.look()}
            return list(self._running.values())

    def past(self, model_name: str) -> list[MockServer]:
        """Return the servers of a model that have ended, newest first."""
        with self.lock:
            return [
                server
                for server in reversed(self._servers.values())
                if server.handle.model_name == model_name and not server.look()
            ]

    def find(self, handle: ProcessHandle) -> MockServer | None:
        """Return the server with exactly this identity, running or past."""
        server = self._servers.get(handle.pid or 0)
        return server if server is not None and _same(server.handle, handle) else None

    def newest(self, model_name: str) -> MockServer | None:
        """Return the server of a model that was started last, running or past."""
        with self.lock:
            for server in reversed(self._servers.values()):
                if server.handle.model_name == model_name:
                    return server
            return None

    def add(
        self,
        config: ServerConfig,
        course: Course,
        engine: MockEngineServer | None,
        *,
        runner: str,
        node: str,
        port: int,
        now: float,
    ) -> MockServer:
        """Give a server its identity, and keep it."""
        with self.lock:
            pid = next(self._pids)
            server_id = config.server_id or str(ULID.from_int(next(self._identities)))
            handle = ProcessHandle(
                model_id=config.model_id,
                model_name=config.model_name,
                pid=pid,
                port=port,
                started_at=now,
                server_id=server_id,
                runner=runner,
                node=node,
                base_url=f"http://127.0.0.1:{port}",
                process_started_at=now,
            )
            server = self._servers[pid] = self._running[pid] = MockServer(handle, course, engine)
            return server

    @contextmanager
    def promise(self, port: int | None) -> Iterator[None]:
        """Keep ``port``, if one is asked for, from everybody else.

        Raises:
            PortInUse: a running server has it, or one that is being started.
        """
        if port is None:
            yield
            return
        with self.lock:
            for server in self.running():
                if server.handle.port == port:
                    raise PortInUse(port, f"{server.handle.model_name} (pid {server.handle.pid})")
            if port in self._promised:
                raise PortInUse(port)
            self._promised.add(port)
        try:
            yield
        finally:
            self._promised.discard(port)

    def free_ports(self, base: int) -> Iterator[int]:
        """Yield the ports that no server has, from ``base`` on; 0 = on from the last one.

        Beyond the last port there is, the search goes on at 20000.
        """
        taken = {server.handle.port for server in self.running()} | self._promised
        begin = base or self._next_port
        for port in itertools.chain(range(begin, _LAST_PORT + 1), range(_FIRST_PORT, begin)):
            if port not in taken:
                if not base:
                    self._next_port = port + 1 if port < _LAST_PORT else _FIRST_PORT
                yield port


def _same(one: ProcessHandle, other: ProcessHandle) -> bool:
    return (one.server_id, one.pid, one.process_started_at, one.node) == (
        other.server_id,
        other.pid,
        other.process_started_at,
        other.node,
    )
