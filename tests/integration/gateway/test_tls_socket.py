"""Clients over TLS: what the relay does with bytes, it does with theirs."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.certificates import Authority
from support.gateway import RawClient, SocketGateway, open_socket_gateway

from gglib.gateway.relay.limits import Limits

pytestmark = pytest.mark.anyio

M = '{"model":"m"}'
#: Far less than what a gateway would wait for a client that says nothing.
SOON_S = 5.0


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The gateway's own loop."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Somebody who issues certificates."""
    return Authority(tmp_path / "authority")


@asynccontextmanager
async def connected(
    authority: Authority, **more: Any
) -> AsyncIterator[tuple[SocketGateway, RawClient]]:
    """Run a gateway that speaks TLS, and connect to it."""
    async with open_socket_gateway(authority=authority, **more) as gateway:
        async with gateway.connect() as client:
            yield gateway, client


def do(script: str) -> str:
    """Return a request that has the engine do something."""
    return json.dumps({"model": "m", "do": script})


async def test_requests_are_relayed_one_after_the_other(authority: Authority) -> None:
    """Whole answers, streams and our own routes, on one connection."""
    async with connected(authority) as (gateway, client):
        for _ in range(2):
            await client.post(M)
            assert json.loads((await client.read()).body)["body"] == M
            await client.post(do("stream"))
            assert (await client.read()).body.endswith(b"data: [DONE]\n\n")
            await client.send("GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await client.read()).status == 200
        assert len(gateway.upstream.received) == 4


async def test_stream_is_not_held_back(authority: Authority) -> None:
    """An event is there before the engine goes on."""
    async with connected(authority) as (gateway, client):
        await client.post(do("gated_stream"))
        await client.read_until(b"data: 0\n\n")
        gateway.upstream.gate("go on").set()
        assert (await client.read()).body == b"data: 0\n\ndata: 1\n\n"


async def test_slow_reader_gets_all_of_an_answer_that_ends_its_connection(
    authority: Authority,
) -> None:
    """What was written before the end is sent before the end."""
    body = '{"model":"m","x":"' + "y" * 3_000_000 + '"}'
    async with connected(authority) as (_, client):
        await client.post(body, extra="Connection: close\r\n")
        await anyio.sleep(0.3)
        answer = await client.read()
        assert answer.whole and json.loads(answer.body)["body"] == body
        assert await client.at_end()


async def test_reader_that_stalls_is_held_back_and_then_dropped(authority: Authority) -> None:
    """Memory stays, and the lease ends."""
    limits = Limits(stall_timeout_s=0.2)
    async with connected(authority, limits=limits) as (gateway, client):
        await client.post(do("endless_stream"))
        await gateway.upstream.gone.wait()


async def test_client_that_is_killed_in_a_stream_frees_the_engine(authority: Authority) -> None:
    """It says no goodbye."""
    async with open_socket_gateway(authority=authority) as gateway:
        async with gateway.connect() as client:
            await client.post(do("stream_until_gone"))
            await client.read_until(b"data: 0")
        await gateway.upstream.gone.wait()


async def test_client_that_says_goodbye_in_a_stream_frees_the_engine(
    authority: Authority,
) -> None:
    """TLS cannot be half closed: who sends no more reads no more."""
    async with open_socket_gateway(authority=authority) as gateway:
        stream = await anyio.connect_tcp(
            "127.0.0.1", gateway.port, ssl_context=authority.client_context()
        )
        client = RawClient(stream)
        await client.post(do("stream_until_gone"))
        await client.read_until(b"data: 0")
        with suppress(anyio.BrokenResourceError, anyio.EndOfStream, ssl.SSLError):
            # Whether the gateway says so, too, or has more to say: it knows.
            await stream.unwrap()
        await gateway.upstream.gone.wait()
        await anyio.aclose_forcefully(stream.transport_stream)


async def test_tunnel_ends_when_its_engine_ends_it(authority: Authority) -> None:
    """At once, not when the gateway tires of waiting."""
    async with connected(authority, limits=Limits(linger_s=60)) as (_, client):
        upgrade = "Connection: Upgrade\r\nUpgrade: loud\r\n"
        await client.send(f"GET /upstream/m/ws HTTP/1.1\r\nHost: localhost\r\n{upgrade}\r\n")
        assert (await client.read(head_only=True)).status == 101
        await client.send(b"hello")
        await client.read_until(b"HELLO")
        client.buffer = b""
        await client.send(b"bye")
        with anyio.fail_after(SOON_S):
            assert await client.at_end()


async def test_refusal_arrives_though_more_is_sent(authority: Authority) -> None:
    """The rest of a body that is too large is read, and goes nowhere."""
    async with connected(authority, limits=Limits(max_body_bytes=1000)) as (_, client):
        await client.post(b"x" * 500_000)
        assert (await client.read()).status == 413


async def test_shutdown_lets_a_stream_end_and_waits_for_nobody_else(
    authority: Authority,
) -> None:
    """Clients that keep an idle connection in a pool do not read it, and answer no goodbye."""
    async with open_socket_gateway(authority=authority, shutdown_timeout_s=60) as gateway:
        async with gateway.connect() as idle, gateway.connect() as busy, gateway.connect() as done:
            await idle.post(M)
            await idle.read()
            await done.post(do("gated_stream"))
            await done.read_until(b"data: 0")
            await busy.post(do("gated_stream"))
            await busy.read_until(b"data: 0")
            with socket.create_connection(("127.0.0.1", gateway.port)):
                began = time.monotonic()
                gateway.stop()
                gateway.upstream.gate("go on").set()
                assert (await busy.read()).whole
                await gateway.server.wait_ended()
                assert time.monotonic() - began < SOON_S
                assert (await done.read()).whole


async def test_stranger_who_does_not_shake_hands_is_sent_away(authority: Authority) -> None:
    """In the time that the head of a request may take."""
    limits = Limits(header_timeout_s=0.2)
    async with open_socket_gateway(authority=authority, limits=limits) as gateway:
        async with await anyio.connect_tcp("127.0.0.1", gateway.port) as stream:
            with anyio.fail_after(SOON_S):
                assert await RawClient(stream).at_end()


async def test_request_without_tls_is_not_answered(authority: Authority) -> None:
    """Nothing of it reaches an engine, and others are served on."""
    async with connected(authority) as (gateway, client):
        async with await anyio.connect_tcp("127.0.0.1", gateway.port) as plain:
            await plain.send(RawClient.request(M))
            answer = b""
            try:
                while True:
                    answer += await plain.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                pass
        assert b"HTTP" not in answer
        assert gateway.upstream.received == []
        await client.post(M)
        assert (await client.read()).status == 200
