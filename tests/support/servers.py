"""Looking at servers from outside, and stopping the world at named moments of a start."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing
from pathlib import Path
from typing import Any, cast

import psutil

from gglib.bootstrap import SystemClock
from gglib.domain.config import ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.domain.health import ServerHealth
from gglib.domain.model import Model, ModelDefaults
from gglib.domain.ownership import Owner, OwnerKind, ServerRecord
from gglib.ports.context import AdapterContext, EngineSet
from gglib.ports.process_runner import ProcessRunner
from gglib.ports.server_client import ServerClient
from gglib.ports.server_registry import ServerRegistry
from gglib.services.serving import ServingService
from gglib.testing.contexts import RecordingSink, make_context
from gglib.testing.stub_engine import StubEngine
from gglib_adapters.catalog.registry import open_sqlite_registry
from gglib_adapters.process_table import PsutilProcessTable
from gglib_adapters.runners.local import open_local_runner
from gglib_adapters.server_client import open_http_server_client

__all__ = [
    "PointRegistry",
    "PointRunner",
    "World",
    "child_pids",
    "line_with",
    "lives",
    "local_context",
    "model_of",
    "open_world",
    "port_answers",
    "processes_of",
    "stub_config",
    "until_ready",
]

At = Callable[[str], Awaitable[None]]


def lives(pid: int) -> bool:
    """Return whether the process exists and is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def processes_of(data_dir: Path) -> list[int]:
    """Return the pids of everything that runs for servers of ``data_dir``."""
    found = []
    for process in psutil.process_iter():
        try:
            carried = process.environ().get("GGLIB_SERVER_HANDLE", "")
            if str(data_dir) in carried and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def port_answers(port: int) -> bool:
    """Return whether somebody listens on ``port``."""
    with closing(socket.socket()) as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


async def line_with(runner: ProcessRunner, handle: ProcessHandle, text: str) -> str:
    """Return the server's first line that holds ``text``, once it is there."""
    lines = cast("AsyncGenerator[str]", runner.logs(handle, tail=1000, follow=True))
    async with aclosing(lines):
        async for line in lines:
            if text in line:
                return line
    raise AssertionError(f"the server ended without saying {text!r}")


async def child_pids(runner: ProcessRunner, handle: ProcessHandle) -> list[int]:
    """Return what the stub said it started."""
    lines = [line async for line in runner.logs(handle, tail=1000)]
    return [int(line.split()[1]) for line in lines if line.startswith("child ")]


def local_context(data_dir: Path, engine: StubEngine, **settings: Any) -> AdapterContext:
    """Return what a local runner with that engine needs."""
    return make_context(data_dir, name="local", engines={"stub": engine}, settings=settings)


def stub_config(name: str = "alpha", **changes: Any) -> ServerConfig:
    """Return a configuration for the stub."""
    return ServerConfig(
        model_id=1, model_name=name, model_path="/none.gguf", engine="stub", **changes
    )


async def until_ready(runner: ProcessRunner, handle: ProcessHandle) -> None:
    """Return when the server is healthy."""
    await line_with(runner, handle, "ready at")
    assert (await runner.health(handle)).healthy


def model_of(data_dir: Path, name: str = "alpha", **defaults: Any) -> Model:
    """Return a model whose file exists."""
    path = data_dir / f"{name}.gguf"
    path.touch()
    defaults.setdefault("engine", "stub")
    return Model(id=1, name=name, paths=(path,), size_bytes=0, defaults=ModelDefaults(**defaults))


class World:
    """The real parts around a serving service."""

    def __init__(
        self,
        runner: ProcessRunner,
        registry: ServerRegistry,
        engines: EngineSet,
        server_client: ServerClient,
    ) -> None:
        self.runner = runner
        self.registry = registry
        self.engines = engines
        self.server_client = server_client
        self.events = RecordingSink()
        self.clock = SystemClock()
        self.processes = PsutilProcessTable()

    @property
    def event_names(self) -> list[str]:
        """Return what happened, in order."""
        return [event.name for event in self.events.events]

    def serving(
        self,
        kind: OwnerKind = OwnerKind.LIBRARY,
        *,
        at: At | None = None,
        start_timeout_s: float = 30.0,
    ) -> ServingService:
        """Return a service in the name of this process; ``at`` is awaited at each point."""
        node, pid, process_started_at = self.processes.identity()
        runner, registry = self.runner, self.registry
        if at is not None:
            runner, registry = PointRunner(runner, at), PointRegistry(registry, at)
        return ServingService(
            {"local": runner},
            "local",
            registry,
            self.engines,
            self.server_client,
            clock=self.clock,
            events=self.events,
            owner=Owner(kind=kind, pid=pid, process_started_at=process_started_at, node=node),
            start_timeout_s=start_timeout_s,
        )


@asynccontextmanager
async def open_world(data_dir: Path, engine: StubEngine, **settings: Any) -> AsyncIterator[World]:
    """Open a local runner and a registry over ``data_dir``."""
    engines = EngineSet({engine.name: engine})
    async with AsyncExitStack() as stack:
        context = make_context(data_dir, name="local", engines=engines, settings=settings)
        registry = await stack.enter_async_context(open_sqlite_registry(make_context(data_dir)))
        runner = await stack.enter_async_context(open_local_runner(context))
        client = await stack.enter_async_context(open_http_server_client(context))
        yield World(runner, registry, engines, client)


class PointRegistry(ServerRegistry):
    """A registry that reports ``intent`` and ``recorded``, once they are durable."""

    def __init__(self, inner: ServerRegistry, at: At) -> None:
        self._inner = inner
        self._at = at

    async def put(self, record: ServerRecord) -> None:
        await self._inner.put(record)
        await self._at("intent" if record.handle is None else f"recorded {record.state}")

    async def get(self, server_id: str) -> ServerRecord | None:
        return await self._inner.get(server_id)

    async def list(self) -> list[ServerRecord]:
        return await self._inner.list()

    async def remove(self, server_id: str) -> None:
        await self._inner.remove(server_id)


class PointRunner(ProcessRunner):
    """A runner that reports ``spawned`` and ``checked``."""

    def __init__(self, inner: ProcessRunner, at: At) -> None:
        self._inner = inner
        self._at = at

    async def start(self, config: ServerConfig) -> ProcessHandle:
        handle = await self._inner.start(config)
        await self._at("spawned")
        return handle

    async def stop(self, handle: ProcessHandle) -> None:
        await self._inner.stop(handle)

    async def is_running(self, handle: ProcessHandle) -> bool:
        return await self._inner.is_running(handle)

    async def health(self, handle: ProcessHandle) -> ServerHealth:
        health = await self._inner.health(handle)
        await self._at("checked")
        return health

    async def list_running(self) -> list[ProcessHandle]:
        return await self._inner.list_running()

    async def wait(self, handle: ProcessHandle) -> int | None:
        return await self._inner.wait(handle)

    async def port_is_taken(self, handle: ProcessHandle) -> bool:
        return await self._inner.port_is_taken(handle)

    async def has_file(self, path: Path) -> bool:
        return await self._inner.has_file(path)

    def logs(
        self, handle: ProcessHandle, *, tail: int = 20, follow: bool = False
    ) -> AsyncIterator[str]:
        return self._inner.logs(handle, tail=tail, follow=follow)
