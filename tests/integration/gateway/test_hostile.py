"""Whatever bytes come: an answer in words or a closed connection, and nobody else is harmed."""

from __future__ import annotations

import random
import re

import anyio
import pytest
from support.gateway import RawClient, SocketGateway, open_socket_gateway

from gglib.gateway.relay.limits import Limits

pytestmark = pytest.mark.anyio

QUICK = Limits(
    header_timeout_s=0.3,
    stall_timeout_s=0.3,
    keep_alive_s=0.3,
    linger_s=0.1,
    max_body_bytes=20_000,
    max_header_bytes=4096,
)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The gateway's own loop."""
    return "asyncio", {"use_uvloop": True}


def request(token: str, head: str = "", body: str | None = None, start: str = "") -> bytes:
    """Return a POST whose answer would hold ``token``."""
    body = f'{{"model":"m","token":"{token}"}}' if body is None else body
    start = start or "POST /v1/chat/completions HTTP/1.1"
    length = "" if "ength" in head or "ncoding" in head else f"Content-Length: {len(body)}\r\n"
    return f"{start}\r\nHost: localhost\r\n{length}{head}\r\n{body}".encode("latin-1")


SHAPES = (
    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "Transfer-Encoding: chunked, identity\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer-Encoding:\x0bchunked\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Content-Length: 5\r\nContent-Length: 6\r\n",
    "Content-Length: 5, 5\r\n",
    "Content-Length: -1\r\n",
    "Content-Length: +5\r\n",
    "Content-Length: 0x10\r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Content-Length: 5 5\r\n",
    "Host: other\r\n",
    "Host : localhost\r\n",
    " folded: header\r\n",
    "X: a\r\n b\r\n",
    "X: a\nY: b\r\n",
    "X: \0\r\n",
    "X\0: a\r\n",
    ": no name\r\n",
    "no colon\r\n",
    "Expect: 100-continue\r\nExpect: x\r\n",
    "Connection: upgrade\r\nUpgrade: websocket\r\n",
    "Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n",
    "X: " + "a" * 5000 + "\r\n",
    "".join(f"X-{number}: a\r\n" for number in range(500)),
    "Content-Type: multipart/form-data; boundary=\r\n",
    "Content-Type: multipart/form-data; boundary=x\r\n",
    "Origin: null\r\n",
    "Origin: http://[\r\n",
    "Authorization: Bearer " + "x" * 3000 + "\r\n",
    "Sec-Fetch-Site: cross-site\r\n",
)
STARTS = (
    "GET http://localhost/v1/models HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "CONNECT localhost:22 HTTP/1.1",
    "TRACE /v1/models HTTP/1.1",
    "POST /v1/chat/completions HTTP/9.9",
    "POST /v1/chat/completions",
    "POST  /v1/chat/completions  HTTP/1.1",
    "POST /v1/../admin/models/m/unload HTTP/1.1",
    "POST /%61dmin/models/m/unload HTTP/1.1",
    "POST //admin//models/m/unload HTTP/1.1",
    "POST /admin\\models/m/unload HTTP/1.1",
    "GET /upstream/ HTTP/1.1",
    "GET /upstream/%00/x HTTP/1.1",
    "GET /upstream/m/%0d%0aX:%20y HTTP/1.1",
    "GET /" + "a" * 5000 + " HTTP/1.1",
    "GET /\xff\xfe HTTP/1.1",
    "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "PRI * HTTP/2.0",
    "",
)
BODIES = (
    "",
    "{",
    "null",
    '{"model": null}',
    '{"model": "m", "model": "n"}',
    '{"model": "m"}{"model": "n"}',
    '{"model": "\\ud800"}',
    '{"model": "m\\u0000"}',
    "[" * 10_000,
    '{"a":' * 3000,
    "\xff\xfe\x00",
    '{"model": "' + "m" * 15_000 + '"}',
    "5\r\nhello\r\n0\r\n\r\n",
    "ffffffffffffffffff\r\nx",
    "5\r\nhelloX\r\n0\r\n\r\n",
    "0\r\nX: y\r\n\r\nGET /admin/queue HTTP/1.1\r\n\r\n",
)


def hostile(dice: random.Random, token: str) -> bytes:
    """Return bytes of a kind that nobody who means well sends."""
    match dice.randrange(6):
        case 0:
            data = request(token, dice.choice(SHAPES))
        case 1:
            data = request(token, start=dice.choice(STARTS))
        case 2:
            data = request(token, body=dice.choice(BODIES))
        case 3:
            head = "Transfer-Encoding: chunked\r\n"
            data = request(token, head, body=dice.choice(BODIES))
        case 4:
            broken = bytearray(request(token, dice.choice(("", *SHAPES))))
            for _ in range(dice.randint(1, 8)):
                broken[dice.randrange(len(broken))] = dice.randrange(256)
            data = bytes(broken)
        case _:
            data = dice.randbytes(dice.randint(1, 3000))
    if dice.random() < 0.3:
        data = data[: dice.randint(1, len(data))]
    if dice.random() < 0.3:
        data = request(token) + data
    if dice.random() < 0.3:
        data += request(token)
    return data


async def everything(client: RawClient) -> bytes:
    """Return all that comes until the connection ends."""
    while await client._more():
        pass
    return client.buffer


async def attack(gateway: SocketGateway, seed: int) -> None:
    """Send something hostile, and see that nothing has come of it."""
    dice = random.Random(seed)
    token = f"<{seed}>"
    data = hostile(dice, token)
    async with gateway.connect() as client:
        with anyio.fail_after(10):
            await client.send(data)
            if dice.random() < 0.5:
                await client.stream.send_eof()
            answers = await everything(client)
    for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers):
        # 502: an engine of the test that cannot make sense of what it was sent either.
        assert int(status) < 500 or int(status) == 502, (seed, data[:300], answers[:500])
    for other in re.findall(rb"<(\d+)>", answers):
        assert int(other) == seed, "bytes of another's answer"


async def check_alive(gateway: SocketGateway) -> None:
    """Have a well-meant request answered."""
    async with gateway.connect() as client:
        await client.post('{"model":"m"}')
        assert (await client.read()).status == 200


@pytest.mark.parametrize(
    "attacks", [60, pytest.param(500, marks=[pytest.mark.soak, pytest.mark.timeout(600)])]
)
async def test_hostile_bytes_crash_hang_and_leak_nothing(attacks: int) -> None:
    """Twenty at a time; after all of them, nothing is in flight, and the gateway serves."""
    async with open_socket_gateway(limits=QUICK) as gateway:
        for first in range(0, attacks, 20):
            async with anyio.create_task_group() as attackers:
                for seed in range(first, first + 20):
                    attackers.start_soon(attack, gateway, seed)
            await check_alive(gateway)
        assert all(view.in_flight == view.queued == 0 for view in gateway.router.residents())


async def test_each_known_trick_is_answered_or_closed() -> None:
    """None is taken for something that it must not be, and none is blamed on us."""
    tricks = [request("<0>", head) for head in SHAPES]
    tricks += [request("<0>", start=start) for start in STARTS]
    tricks += [request("<0>", body=body) for body in BODIES]

    async def play(trick: bytes) -> None:
        async with gateway.connect() as client:
            with anyio.fail_after(5):
                await client.send(trick)
                answers = await everything(client)
        for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers):
            assert int(status) < 500, (trick[:300], answers[:500])

    async with open_socket_gateway(limits=QUICK) as gateway:
        async with anyio.create_task_group() as players:
            for trick in tricks:
                players.start_soon(play, trick)
        assert not any(b"unload" in request.head for request in gateway.upstream.received)
        assert all(view.closing is None for view in gateway.router.residents())
