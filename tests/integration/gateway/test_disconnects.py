"""A client that leaves is noticed at once: its engine is free, or its place in the queue."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import anyio
import pytest
from support.gateway import SocketGateway, open_socket_gateway

from gglib.services.routing.planners import CountPlanner

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The gateway's own loop."""
    return "asyncio", {"use_uvloop": True}


async def until(condition: Callable[[], bool]) -> None:
    """Let the gateway work until it holds."""
    while not condition():
        await anyio.sleep(0)


def queued(gateway: SocketGateway) -> int:
    """Return how many wait."""
    return sum(view.queued for view in gateway.router.residents())


async def leave_stream(gateway: SocketGateway) -> float:
    """Go away in the midst of a stream; return how long the engine takes to know."""
    before = gateway.upstream.disconnects
    async with gateway.connect() as client:
        await client.post('{"model":"m","do":"stream_until_gone"}')
        while b"data: 0" not in client.buffer:
            assert await client._more()
    left_at = time.monotonic()
    await until(lambda: gateway.upstream.disconnects > before)
    return time.monotonic() - left_at


async def leave_queue(gateway: SocketGateway) -> float:
    """Go away while waiting; return how long the queue takes to know."""
    async with gateway.connect() as client:
        await client.post('{"model":"one"}')
        await until(lambda: queued(gateway) == 1)
    left_at = time.monotonic()
    await until(lambda: queued(gateway) == 0)
    return time.monotonic() - left_at


@pytest.mark.parametrize(
    "clients", [20, pytest.param(500, marks=[pytest.mark.soak, pytest.mark.timeout(300)])]
)
async def test_client_that_leaves_is_noticed_at_once(clients: int) -> None:
    """Half of them in a stream, half in the queue: always within 1 s, and 99 of 100 in 100 ms."""
    async with (
        open_socket_gateway(planner=CountPlanner(2)) as gateway,
        gateway.connect() as holder,
    ):
        await holder.post('{"model":"one","do":"hold"}')
        await gateway.upstream.reach("held").wait()
        for name, leave in (("stream", leave_stream), ("queue", leave_queue)):
            times = sorted([await leave(gateway) for _ in range(clients)])
            p99 = times[int(len(times) * 0.99)]
            print(
                f"{clients} left a {name}: median {statistics.median(times) * 1e3:.2f} ms, "
                f"p99 {p99 * 1e3:.2f} ms, max {times[-1] * 1e3:.2f} ms"
            )
            assert times[-1] < 1.0
            assert p99 < 0.1 or clients < 100
