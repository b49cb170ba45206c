"""What the promises of a runner are tested with: servers that behave as they are told."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    suppress,
)
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import anyio.to_thread
import psutil
import pytest

from gglib.bootstrap import SystemClock
from gglib.domain.config import SERVER_ID_VARIABLE, ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.domain.health import ServerHealth
from gglib.domain.ids import new_server_id
from gglib.errors import NotRunning
from gglib.ports.clock import Clock
from gglib.ports.context import AdapterContext
from gglib.ports.process_runner import ProcessRunner
from gglib.testing.contexts import make_context
from gglib.testing.contracts.backends import Contract
from gglib.testing.contracts.process_runner.behaviour import STUB_OPTIONS, Behaviour
from gglib.testing.contracts.process_runner.kit_engine import KitEngine
from gglib.testing.contracts.process_runner.outside import ask_stub
from gglib.testing.contracts.process_runner.patient import PatientRunner, patience

__all__ = ["OpenRunner", "RunnerKit", "RunnerPromises"]

OpenRunner: TypeAlias = Callable[[AdapterContext], AbstractAsyncContextManager[ProcessRunner]]


class RunnerKit:
    """Opens runners over one data directory, and starts servers that behave as they are told."""

    def __init__(
        self,
        contract: RunnerPromises,
        open_runner: OpenRunner,
        data_dir: Path,
        clock: Clock,
    ) -> None:
        self.clock = clock
        self.data_dir = data_dir
        self.engine = KitEngine(data_dir.resolve() / "where-engines-run")
        self.server_ids: list[str] = []
        self._contract = contract
        self._open_runner = open_runner

    @asynccontextmanager
    async def open(
        self, *, data_dir: Path | None = None, name: str = "contract"
    ) -> AsyncIterator[PatientRunner]:
        """Open a runner under ``name``."""
        context = make_context(
            data_dir or self.data_dir,
            name=name,
            settings=self._contract.settings,
            engines={"stub": self.engine},
            clock=self.clock,
        )
        async with self._open_runner(context) as runner:
            yield PatientRunner(runner, self._contract.patience_s)

    async def start(
        self,
        runner: PatientRunner,
        behaviour: Behaviour = Behaviour.READY,
        name: str = "alpha",
        **changes: Any,
    ) -> ProcessHandle:
        """Start a server of the model ``name`` that behaves so."""
        environment = {SERVER_ID_VARIABLE: new_server_id(), **changes.pop("environment", {})}
        self.server_ids.append(environment[SERVER_ID_VARIABLE])
        config = ServerConfig(
            model_id=1,
            model_name=name,
            model_path=self.data_dir / f"{name}.gguf",
            engine="stub",
            environment=environment,
            **changes,
        )
        self._contract.prepare(self, runner.inner, config, behaviour)
        return await runner.start(config)

    async def until_healthy(self, runner: ProcessRunner, handle: ProcessHandle) -> ServerHealth:
        """Return the first healthy answer of the server."""
        with self.patience("a server that is ready becomes healthy"):
            while not (health := await runner.health(handle)).healthy:
                await self.pause()
        return health

    async def until_gone(self, runner: ProcessRunner, handle: ProcessHandle) -> None:
        """Return when the server is not running."""
        with self.patience("a server that has ended is not running"):
            while await runner.is_running(handle):
                await self.pause()

    async def pause(self) -> None:
        """Let a moment pass, on the runner's clock."""
        await self.clock.sleep(0.005)

    def patience(self, promise: str) -> AbstractContextManager[None]:
        """Fail with ``promise`` if the block takes far too long."""
        return patience(promise, self._contract.patience_s)

    async def lines(self, runner: ProcessRunner, handle: ProcessHandle, tail: int) -> list[str]:
        """Return the last lines of a server's output."""
        return [line async for line in runner.logs(handle, tail=tail)]

    def processes(self) -> list[psutil.Process]:
        """Return all that lives of the servers that were started here, by what it carries."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                carried = process.environ().get(SERVER_ID_VARIABLE)
                if carried in self.server_ids and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def kill_what_is_left(self) -> None:
        """End what a runner that broke its promises left behind."""
        for process in self.processes():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


class RunnerPromises(Contract):
    """The fixtures and capabilities that the promises of a runner are written in."""

    settings: ClassVar[Mapping[str, Any]] = {}
    """The runner's section of the configuration. Give it a short grace before it kills."""

    has_processes: ClassVar[bool] = True
    """Its servers are processes of this machine, with pids, and run their engine's command."""
    has_ports: ClassVar[bool] = True
    """Its servers listen on their port of this machine."""
    outlive_runner: ClassVar[bool] = True
    """Its servers run on when the runner is left; the next over the data directory finds them."""
    keeps_output: ClassVar[bool] = True
    """What its servers print can be read, also after their end."""
    knows_exit_status: ClassVar[bool] = True
    """It can tell how a server of its own ended."""
    knows_files: ClassVar[bool] = True
    """It can tell whether a file is there."""
    patience_s: ClassVar[float] = 20.0
    """How long the tests wait for what should take a moment, in seconds."""

    @pytest.fixture
    def open_runner(self) -> OpenRunner:
        """Return the adapter's factory, as its entry point names it. Override this."""
        raise NotImplementedError("override the fixture open_runner: return your factory")

    @pytest.fixture
    def clock(self) -> Clock:
        """Return the clock the runner is given. Override it for a runner without processes."""
        return SystemClock()

    @pytest.fixture
    def kit(self, open_runner: OpenRunner, tmp_path: Path, clock: Clock) -> Iterator[RunnerKit]:
        """Return what the tests start servers with."""
        kit = RunnerKit(self, open_runner, tmp_path, clock)
        yield kit
        if self.has_processes:
            kit.kill_what_is_left()

    @pytest.fixture
    async def runner(self, kit: RunnerKit) -> AsyncIterator[PatientRunner]:
        """Open the runner for one test; what the test leaves running is stopped."""
        async with kit.open() as runner:
            yield runner
            for handle in await runner.list_running():
                with suppress(NotRunning):
                    await runner.stop(handle)

    def prepare(
        self, kit: RunnerKit, runner: ProcessRunner, config: ServerConfig, behaviour: Behaviour
    ) -> None:
        """Make the next start of ``config`` behave so.

        Here: by what the stub engine's command says. A runner that does not run commands
        overrides this.
        """
        del runner
        kit.engine.for_model[config.model_name] = STUB_OPTIONS[behaviour]

    async def say(
        self, kit: RunnerKit, runner: ProcessRunner, handle: ProcessHandle, line: str
    ) -> None:
        """Make a running, healthy server print ``line``.

        Here: by asking gglib's stub server. A runner that does not run commands, and keeps
        output, overrides this.
        """
        del kit, runner
        await anyio.to_thread.run_sync(ask_stub, handle.base_url, "/stub/print", line)

    def needs(self, *capabilities: str) -> None:
        """Skip the test for a runner that does not have all the capabilities."""
        for capability in capabilities:
            if not getattr(self, capability):
                pytest.skip(f"this runner declares {capability} = False")
