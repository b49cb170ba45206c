"""A gateway in this process, over an engine of the test's own; real sockets on both sides."""

from __future__ import annotations

import logging
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import ByteStream

from gglib.bootstrap import SystemClock
from gglib.domain.config import ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.domain.inference import InferenceConfig
from gglib.domain.model import Model, ModelDefaults, Profile
from gglib.domain.ownership import Owner, OwnerKind, ServerRecord
from gglib.domain.state import ServerState
from gglib.errors import GglibError, NodeUnreachable
from gglib.gateway.doors import Doors
from gglib.gateway.event_feed import EventFeed
from gglib.gateway.meter import Meter
from gglib.gateway.relay.body_rules import RuleBook
from gglib.gateway.relay.limits import Limits
from gglib.gateway.relay.routes import RELAYED_ROUTES
from gglib.gateway.relay.shared import RelayShared
from gglib.gateway.relay.turn_kinds import TurnKinds
from gglib.gateway.server import GatewayServer
from gglib.ports.context import RunnerSet
from gglib.ports.model_catalog import ModelCatalog
from gglib.ports.model_source import LocatedModel, ModelSource
from gglib.services.models import ModelService
from gglib.services.pool import Pool
from gglib.services.routing.planners import Planner
from gglib.services.routing.router import Router, open_router
from gglib.services.routing.terms import Policy
from gglib.services.server_logs import ServerLogs
from gglib.services.serving import RunningServer
from gglib.settings.difference import Difference
from gglib.testing.contexts import RecordingSink
from gglib_adapters.catalog.memory import MemoryServerRegistry
from support.certificates import Authority
from support.ledgers import paper_ledger
from support.upstream import ScriptedUpstream

__all__ = ["Answer", "RawClient", "SocketGateway", "open_socket_gateway"]


class FakeServing:
    """Starts nothing: every model is served by the scripted engine."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self.upstream = upstream
        self.starts: list[str] = []
        self.stops: list[str] = []
        self.servers: list[RunningServer] = []
        self.deaths: dict[str, anyio.Event] = {}
        self.hold: anyio.Event | None = None
        self.start_asked = anyio.Event()
        self.failure: GglibError | None = None
        self.ca_file: str | None = None

    def runners_of(self, model: Model) -> tuple[str, ...]:
        return model.defaults.runners or ("local",)

    async def start(
        self, model: Model, *, context_size: int | None = None, runner: str | None = None
    ) -> RunningServer:
        self.starts.append(model.name)
        self.start_asked.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.failure is not None:
            raise self.failure
        upstream, name = self.upstream, f"server-{len(self.starts)}"
        server = running_server(name, model, upstream.port, upstream.base_url, self.ca_file)
        self.servers.append(server)
        self.deaths[server.server_id] = anyio.Event()
        return server

    def die(self, number: int = 0) -> None:
        """Have a server end by itself."""
        self.deaths[self.servers[number].server_id].set()

    async def let_go(self, server: RunningServer) -> None:
        await self.stop(server)

    async def stop(self, server: RunningServer) -> None:
        self.stops.append(server.model.name)

    async def way_to(self, server: RunningServer) -> NodeUnreachable | None:
        return None

    def take_left(self) -> list[ServerRecord]:
        return []

    async def wait_gone(self, server: RunningServer) -> int | None:
        await self.deaths[server.server_id].wait()
        return None


def running_server(
    server_id: str,
    model: Model,
    port: int,
    base_url: str | None = None,
    ca_file: str | None = None,
) -> RunningServer:
    """Return a server that is reached on a port, or somewhere else."""
    handle = ProcessHandle(
        model_id=model.id,
        model_name=model.name,
        pid=1,
        port=port or 1,
        started_at=1.0,
        server_id=server_id,
        runner="local",
        node="here",
        base_url=base_url or f"http://127.0.0.1:{port}",
        ca_file=ca_file,
    )
    record = ServerRecord(
        server_id=server_id,
        owner=Owner(kind=OwnerKind.GATEWAY, pid=1, process_started_at=1.0, node="here"),
        config=ServerConfig(model_id=model.id, model_name=model.name, model_path=model.path),
        engine="scripted",
        runner="local",
        state=ServerState.READY,
        created_at=1.0,
        handle=handle,
        api_key="engine-key",
    )
    return RunningServer(record=record, handle=handle, model=model, load_s=0.1)


class ListCatalog(ModelCatalog):
    """A catalog that is a list."""

    def __init__(self, models: list[Model]) -> None:
        self.models = models

    async def add(self, model: Model) -> Model:
        raise AssertionError("not used")

    async def get(self, model_id: int) -> Model:
        raise AssertionError("not used")

    async def list(self) -> list[Model]:
        return self.models

    async def update(self, model: Model) -> None:
        raise AssertionError("not used")

    async def remove(self, model_id: int) -> None:
        raise AssertionError("not used")

    async def id_for_name(self, name: str) -> int:
        raise AssertionError("not used")

    async def revision(self) -> int:
        return len(self.models)


class NoSource(ModelSource):
    """A source without files."""

    async def locate(self, reference: str) -> LocatedModel:
        raise AssertionError("not used")


def model(number: int, name: str, **defaults: Any) -> Model:
    """Return a model that has no file."""
    return Model(
        id=number,
        name=name,
        paths=(Path(f"/models/{name}.gguf"),),
        size_bytes=1,
        aliases=(f"{name}-alias",),
        profiles=(Profile(name="cold", inference=InferenceConfig(temperature=0.0)),),
        defaults=ModelDefaults(**defaults),
    )


@dataclass
class SocketGateway:
    """The gateway under test."""

    port: int
    upstream: ScriptedUpstream
    serving: FakeServing
    router: Router
    server: GatewayServer
    shared: RelayShared
    bugs: list[BaseException]
    feed: EventFeed
    trust: ssl.SSLContext | None = None
    """Of clients, where it speaks TLS."""

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[RawClient]:
        """Open a client connection."""
        if self.trust is None:
            async with await anyio.connect_tcp("127.0.0.1", self.port) as stream:
                yield RawClient(stream)
            return
        # One that leaves says no goodbye, as one that is killed.
        async with await anyio.connect_tcp(
            "127.0.0.1", self.port, ssl_context=self.trust, tls_standard_compatible=False
        ) as stream:
            yield RawClient(stream)

    def stop(self) -> None:
        """Begin the graceful end."""
        self.router.begin_shutdown()
        self.server.stop()


@asynccontextmanager
async def open_socket_gateway(
    *,
    limits: Limits | None = None,
    api_keys: tuple[str, ...] = (),
    shutdown_timeout_s: float = 5.0,
    queue_limit: int = 256,
    more_models: tuple[str, ...] = (),
    planner: Planner | None = None,
    replicas: int = 1,
    session_header: bytes = b"",
    logs: ServerLogs | None = None,
    loading_state: bool = False,
    allowed_origins: tuple[str, ...] = (),
    rule_book: RuleBook | None = None,
    turns: TurnKinds | None = None,
    meter: type[Meter] = Meter,
    upstream: ScriptedUpstream | None = None,
    ca_file: Path | None = None,
    authority: Authority | None = None,
) -> AsyncIterator[SocketGateway]:
    """Serve models m, n and one (one request at a time, on each of so many servers) for the block.

    ``authority``: whose certificate it shows, if it is to speak TLS. Bugs fail the test.
    """
    upstream = upstream or ScriptedUpstream()
    serving = FakeServing(upstream)
    serving.ca_file = None if ca_file is None else str(ca_file)
    bugs: list[BaseException] = []
    listed = [model(1, "m"), model(2, "n"), model(3, "one", concurrency_limit=1, replicas=replicas)]
    listed += [model(number, name) for number, name in enumerate(more_models, 4)]
    models = ModelService(
        ListCatalog(listed),
        NoSource(),
        clock=SystemClock(),
        events=RecordingSink(),
    )
    await models.refresh()
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    listener.setblocking(False)
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    async with anyio.create_task_group() as tasks:
        await tasks.start(lambda *, task_status: upstream.run(task_status=task_status))
        async with open_router(
            serving,  # type: ignore[arg-type]
            clock=SystemClock(),
            planner=planner,
            policy=Policy(queue_limit=queue_limit),
        ) as router:
            shared = RelayShared(
                router=router,
                models=models,
                doors=Doors(
                    admin_token="admin-token", api_keys=api_keys, allowed_origins=allowed_origins
                ),
                loading_state=loading_state,
                rule_book=rule_book or RuleBook(),
                limits=limits or Limits(),
                session_header=session_header,
                turns=turns or TurnKinds(),
                meter=meter(RELAYED_ROUTES),
                on_task_error=bugs.append,
            )
            feed = EventFeed()
            pool = Pool(
                router,
                serving=serving,  # type: ignore[arg-type]
                ledger=paper_ledger(models),
                clock=SystemClock(),
                events=RecordingSink(),
                health_check_interval_s=None,
            )
            server = GatewayServer(
                shared,
                pool,
                feed,
                logs or ServerLogs(MemoryServerRegistry(), RunnerSet({})),
                shutdown_timeout_s=shutdown_timeout_s,
                sweep_interval_s=0.02,
                reload=_no_reload,
                tls=authority and authority.server_context("127.0.0.1"),
                pulls=_no_pulls,
            )
            router.on_server_gone(server.drop_server)
            tasks.start_soon(server.serve_on, listener)
            try:
                yield SocketGateway(
                    listener.getsockname()[1],
                    upstream,
                    serving,
                    router,
                    server,
                    shared,
                    bugs,
                    feed,
                    authority and authority.client_context(),
                )
            finally:
                router.begin_shutdown()
                server.stop()
                with anyio.CancelScope(shield=True):
                    await server.wait_ended()
                shared.pools.close()
        tasks.cancel_scope.cancel()
    listener.close()
    assert bugs == []


#: Nothing is pulled through these gateways.
_no_pulls: Any = None


async def _no_reload() -> Difference:
    raise AssertionError("not used")


@dataclass
class Answer:
    """One answer, read from a socket by its own framing."""

    status: int
    head: bytes
    body: bytes
    whole: bool
    """Whether the framing says that nothing is missing."""

    def header(self, name: str) -> str | None:
        """Return a header's value, or None."""
        found = re.search(rf"(?im)^{re.escape(name)}:\s*(.*?)\r?$", self.head.decode("latin-1"))
        return found.group(1) if found else None


class RawClient:
    """Sends bytes, and reads answers without helping the server."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.buffer = b""

    async def send(self, data: bytes | str) -> None:
        """Send bytes as they are."""
        await self.stream.send(data.encode() if isinstance(data, str) else data)

    async def post(
        self, body: str | bytes, *, path: str = "/v1/chat/completions", extra: str = ""
    ) -> None:
        """Send one POST."""
        await self.send(self.request(body, path=path, extra=extra))

    @staticmethod
    def request(body: str | bytes, *, path: str = "/v1/chat/completions", extra: str = "") -> bytes:
        """Return one POST as bytes."""
        raw = body.encode() if isinstance(body, str) else body
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(raw)}\r\n{extra}\r\n"
        )
        return head.encode() + raw

    async def _more(self) -> bool:
        try:
            self.buffer += await self.stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return False
        return True

    async def read(self, *, head_only: bool = False) -> Answer:
        """Read one answer."""
        while b"\r\n\r\n" not in self.buffer:
            if not await self._more():
                return Answer(0, self.buffer, b"", whole=False)
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        answer = Answer(int(head.split(b" ", 2)[1]), head, b"", whole=True)
        if head_only or answer.status in {100, 204, 304}:
            return answer
        if (length := answer.header("content-length")) is not None:
            while len(self.buffer) < int(length):
                if not await self._more():
                    answer.whole = False
                    break
            answer.body, self.buffer = self.buffer[: int(length)], self.buffer[int(length) :]
        elif answer.header("transfer-encoding") == "chunked":
            answer.whole = await self._read_chunks(answer)
        else:
            while await self._more():
                pass
            answer.body, self.buffer = self.buffer, b""
        return answer

    async def _read_chunks(self, answer: Answer) -> bool:
        while True:
            while b"\r\n" not in self.buffer:
                if not await self._more():
                    return False
            size, _, rest = self.buffer.partition(b"\r\n")
            length = int(size, 16)
            while len(rest) < length + 2:
                self.buffer = rest
                if not await self._more():
                    return False
                rest = self.buffer
            answer.body += rest[:length]
            assert rest[length : length + 2] == b"\r\n"
            self.buffer = rest[length + 2 :]
            if length == 0:
                return True

    async def read_until(self, marker: bytes) -> bytes:
        """Read until ``marker`` has come, and return all that came."""
        while marker not in self.buffer:
            if not await self._more():
                raise AssertionError(f"closed before {marker!r}: {self.buffer!r}")
        return self.buffer

    async def at_end(self) -> bool:
        """Return whether the server closes now without another byte."""
        return not await self._more() and not self.buffer
