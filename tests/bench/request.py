"""What one relayed request costs without the kernel: CPU time per request, with memory for sockets.

More repeatable than requests per second; it tells what a change to the path of a request costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import uvloop
from uvicorn.config import Config
from uvicorn.server import ServerState

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.gateway import FakeServing, ListCatalog, NoSource, model
from support.upstream import ScriptedUpstream

from gglib.bootstrap import SystemClock
from gglib.cli.serve import settle_garbage
from gglib.gateway.doors import Doors
from gglib.gateway.relay.connection import GatewayProtocol
from gglib.gateway.relay.limits import Limits
from gglib.gateway.relay.shared import RelayShared
from gglib.gateway.relay.upstream import UpstreamConnection, UpstreamPool
from gglib.logs import SilentSink
from gglib.services.models import ModelService
from gglib.services.routing.router import Router, open_router

_SAID = {"role": "assistant", "content": "Hello there, how are you?"}
_USAGE = {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16}
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
DOCUMENT = json.dumps(
    {"id": "chatcmpl-1", "choices": [{"index": 0, "message": _SAID}], "usage": _USAGE}
).encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(DOCUMENT),
    DOCUMENT,
)
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b"data: " + json.dumps({"choices": [{"delta": {"content": "x" * 150}}]}).encode() + b"\n\n"
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
CHUNKS = 100


class MemoryTransport(asyncio.Transport):
    """Takes bytes and forgets them."""

    def write(self, data: Any) -> None:
        """See ``asyncio.Transport``."""

    def is_closing(self) -> bool:
        """See ``asyncio.Transport``."""
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See ``asyncio.Transport``."""
        return default

    def pause_reading(self) -> None:
        """See ``asyncio.Transport``."""

    def resume_reading(self) -> None:
        """See ``asyncio.Transport``."""


async def connected(shared: RelayShared, router: Router) -> tuple[Any, UpstreamConnection]:
    """Return a client's connection, and an idle one to the engine behind it."""
    # It warns of an application that is no ASGI one; none is ever asked here.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    config = Config(app=lambda: None, log_config=None)
    config.load()
    client = GatewayProtocol(config, ServerState(), {}, shared=shared)
    client.connection_made(MemoryTransport())
    lease = await router.acquire(shared.models.peek("m").model)  # type: ignore[union-attr]
    pool: UpstreamPool = shared.pools.of(lease.server)
    engine = UpstreamConnection(pool)
    engine.connection_made(MemoryTransport())
    pool.put_back(engine)
    lease.release()
    return client, engine


def best_of(rounds: int, work: Any, count: int) -> float:
    """Return the CPU microseconds that one piece of work took, in the best of some rounds."""
    best = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(count):
            work()
        best = min(best, (time.process_time() - began) / count)
    return best * 1e6


async def run(rounds: int) -> dict[str, float]:
    """Measure, and return microseconds."""
    models = ModelService(
        ListCatalog([model(1, "m")]), NoSource(), clock=SystemClock(), events=SilentSink()
    )
    await models.refresh()
    serving: Any = FakeServing(ScriptedUpstream())
    async with open_router(serving, clock=SystemClock()) as router:
        shared = RelayShared(
            router=router,
            models=models,
            doors=Doors(admin_token="t"),
            limits=Limits(),
            on_task_error=lambda error: sys.exit(repr(error)),
        )
        client, engine = await connected(shared, router)

        def request() -> None:
            client.data_received(REQUEST)
            engine.data_received(ANSWER)

        def stream() -> None:
            client.data_received(REQUEST)
            engine.data_received(STREAM)
            for _ in range(CHUNKS):
                engine.data_received(CHUNK)
            engine.data_received(b"0\r\n\r\n")

        request()
        settle_garbage()
        return {
            "a request and its answer": best_of(rounds, request, 20_000),
            f"a stream of {CHUNKS} events": best_of(rounds, stream, 500),
        }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    for what, found_us in uvloop.run(run(rounds)).items():
        print(f"{what}: {found_us:.2f} µs")


if __name__ == "__main__":
    main()
