"""A runner of servers on another machine, for tests, and what looks for those that it left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import anyio
import attrs
import psutil

from gglib.domain.config import SERVER_ID_VARIABLE, ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.domain.ids import new_server_id
from gglib.errors import NodeUnreachable, NotRunning
from gglib.ports.process_runner import ProcessRunner
from gglib.testing.contexts import make_context
from gglib.testing.stub_engine import StubEngine
from gglib_adapters.runners.ssh import open_ssh_runner
from support.far_machine import FarMachine

__all__ = ["RETURN_S", "Opener", "There", "carriers_of", "nothing_left", "opener", "until"]

#: How soon a server has to be ready again when its machine can be reached.
RETURN_S = 5.0


def carriers_of(folder: Path) -> list[psutil.Process]:
    """Return what lives with one of our servers' ids in its environment and ``folder`` in its."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            carried = process.environ()
            ours = carried.get("GGLIB_TEST_FOLDER") == str(folder)
            alive = process.status() != psutil.STATUS_ZOMBIE
            if ours and alive and SERVER_ID_VARIABLE in carried:
                found.append(process)
    return found


@contextmanager
def nothing_left(folder: Path) -> Iterator[None]:
    """Kill what still lives of the servers of ``folder`` after the block, and tell of it."""
    yield
    left = carriers_of(folder)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    assert left == []


@attrs.define
class There:
    """A runner, and what starts servers by it."""

    runner: ProcessRunner
    engine: StubEngine
    folder: Path
    asked: int = 0
    """How many requests ``post`` has sent."""

    async def start(self, name: str = "alpha", **changes: Any) -> ProcessHandle:
        """Start a server of the stub engine."""
        environment = {
            SERVER_ID_VARIABLE: new_server_id(),
            "GGLIB_TEST_FOLDER": str(self.folder),
            **changes.pop("environment", {}),
        }
        config = ServerConfig(
            model_id=1,
            model_name=name,
            model_path=Path("/srv/alpha.gguf"),
            engine="stub",
            environment=environment,
            **changes,
        )
        return await self.runner.start(config)

    async def post(self, handle: ProcessHandle, path: str, body: bytes) -> bytes:
        """Return all that the stub says to a request over its forward, until that ends."""
        socket = unquote(handle.base_url.removeprefix("http+unix://"))
        head = f"POST {path} HTTP/1.1\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        heard = b""
        async with await anyio.connect_unix(socket) as stream:
            await stream.send(head.encode() + body)
            self.asked += 1
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    heard += await stream.receive()
        return heard

    async def until_healthy(self, handle: ProcessHandle) -> None:
        """Return when the server says that it is ready."""
        while not (await self.runner.health(handle)).healthy:
            await anyio.sleep(0.01)


Opener = Callable[..., AbstractAsyncContextManager[There]]


def opener(machine: FarMachine, folder: Path) -> Opener:
    """Return what opens a runner of servers on the machine, with settings of its own."""
    data_dir = folder / "here"
    data_dir.mkdir()

    @asynccontextmanager
    async def opened(**settings: Any) -> AsyncIterator[There]:
        engine = StubEngine()
        context = make_context(
            data_dir,
            name="box",
            settings={**machine.settings, "stop_grace_s": 0.2, **settings},
            engines={"stub": engine},
        )
        async with open_ssh_runner(context) as runner:
            there = There(runner, engine, folder)
            yield there
            if not carriers_of(folder):
                return
            with suppress(NodeUnreachable):
                with anyio.move_on_after(RETURN_S):
                    await until(lambda: _is_there(runner))
                for handle in await runner.list_running():
                    with suppress(NotRunning):
                        await runner.stop(handle)

    return opened


async def _is_there(runner: ProcessRunner) -> bool:
    """Whether its machine answers: one that has just come back may not yet."""
    with suppress(NodeUnreachable):
        await runner.list_running()
        return True
    return False


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Return when ``holds`` does; whoever tests says by when."""
    while not await holds():
        await anyio.sleep(0.01)
