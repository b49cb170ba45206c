"""A gateway holds no more after many requests than after a few, however they went."""

from __future__ import annotations

import json
import random
import socket
import struct
from collections.abc import Awaitable, Callable

import anyio
import pytest
from support.gateway import RawClient, SocketGateway, open_socket_gateway
from support.held import grown_objects, objects_by_type, open_files, rss_bytes, slope

from gglib.services.routing.planners import CountPlanner

pytestmark = pytest.mark.anyio

#: Far below one of anything for each request, and above what caches and timers vary by.
TOLERANCE = 20
MIB = 2**20
#: What the allocator keeps varies by so much.
MAX_GROWN_MIB = 4.0
SOAK = [pytest.mark.soak, pytest.mark.timeout(1800)]

Act = Callable[[SocketGateway, random.Random], Awaitable[int]]
"""Does something, and returns how many requests it was."""


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The gateway's own loop."""
    return "asyncio", {"use_uvloop": True}


#: The connection goes on behind most of them.
BODIES = [
    *['{"model":"m"}'] * 10,
    *['{"model":"n","do":"stream"}'] * 10,
    '{"model":"m","do":"closing"}',
    '{"model":"m","do":"close_after"}',
    '{"model":"m","do":"trailers"}',
    '{"model":"m","do":"die_in_stream"}',
    '{"model":"m","do":"die_in_body"}',
    '{"model":"m","do":"status","status":"500 Oh"}',
    '{"model":"nobody"}',
    '{"model":7}',
    "no JSON",
    json.dumps({"model": "m", "padding": "x" * 20_000}),
]


async def ask(gateway: SocketGateway, chance: random.Random) -> int:
    """Send requests of all kinds over one connection, until one of them ends it."""
    number = 0
    async with gateway.connect() as client:
        while number < 20:
            number += 1
            await client.post(chance.choice(BODIES))
            answer = await client.read()
            if not answer.whole or answer.header("connection") == "close":
                break
    return number


async def leave(gateway: SocketGateway, chance: random.Random) -> int:
    """Ask for a stream, and go away: while it runs, before it has begun, or from the queue."""
    gone = gateway.upstream.disconnects
    async with gateway.connect() as client:
        if chance.random() < 0.3:
            # A reset, not a goodbye.
            raw = client.stream.extra(anyio.abc.SocketAttribute.raw_socket)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await LEAVERS[chance.randrange(len(LEAVERS))](gateway, client)
    await until(lambda: gateway.upstream.disconnects > gone)
    return 1


async def leave_stream(gateway: SocketGateway, client: RawClient) -> None:
    """Go in the midst of it."""
    await client.post('{"model":"m","stream":true,"do":"events_for_ever"}')
    await client.read_until(b"data: ")


async def leave_before(gateway: SocketGateway, client: RawClient) -> None:
    """Go before its first byte."""
    held = gateway.upstream.reached["held"] = anyio.Event()
    await client.post('{"model":"m","stream":true,"do":"hold"}')
    await held.wait()


async def leave_queue(gateway: SocketGateway, client: RawClient) -> None:
    """Go from the queue: the one request that the model takes is another's, who goes too."""
    held = gateway.upstream.reached["held"] = anyio.Event()
    async with gateway.connect() as holder:
        await holder.post('{"model":"one","stream":true,"do":"hold"}')
        await held.wait()
        await client.post('{"model":"one","stream":true}')
        await until(lambda: sum(each.queued for each in gateway.router.residents()) == 1)
        await client.stream.aclose()
        await until(lambda: not sum(each.queued for each in gateway.router.residents()))


LEAVERS = (leave_stream, leave_before, leave_queue)


async def until(condition: Callable[[], bool]) -> None:
    """Let the gateway work until it holds."""
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0)


async def at_rest(gateway: SocketGateway) -> None:
    """Wait until nobody is connected to the gateway, nor anything under way in it."""
    await until(lambda: not gateway.server.connections and not gateway.shared.tasks)
    gateway.upstream.received.clear()


async def do_many(act: Act, times: int, gateway: SocketGateway, chance: random.Random) -> None:
    """Do so many requests, and wait until they are over."""
    while times > 0:
        times -= await act(gateway, chance)
    await at_rest(gateway)


@pytest.mark.parametrize(
    ("act", "times"),
    [
        pytest.param(ask, 2_000, id="requests"),
        pytest.param(leave, 200, id="cancelled streams"),
        pytest.param(ask, 100_000, id="many requests", marks=SOAK),
        pytest.param(leave, 10_000, id="many cancelled streams", marks=SOAK),
    ],
)
async def test_gateway_holds_nothing_of_what_is_over(act: Act, times: int) -> None:
    """Objects, open files and memory are as they were, however the requests ended."""
    chance = random.Random(5)
    async with open_socket_gateway(planner=CountPlanner(3)) as gateway:
        gateway.upstream.events = [b"data: {}\n\n"]
        await do_many(act, times // 10, gateway, chance)
        objects_by_type()
        base, files, rss = objects_by_type(), open_files(), [rss_bytes()]
        for _ in range(20):
            await do_many(act, times // 20, gateway, chance)
            rss.append(rss_bytes())
        assert grown_objects(base, tolerance=TOLERANCE) == {}
        assert open_files() <= files + TOLERANCE
    grown_mib = (rss[-1] - rss[0]) / MIB
    print(f"{times} times: {grown_mib:+.2f} MiB, {slope(rss) * 20 / times:+.1f} bytes each")
    assert grown_mib < MAX_GROWN_MIB
