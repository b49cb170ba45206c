"""Engines behind a Unix socket and behind TLS: relayed like those on a port."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio
import pytest
from support.certificates import Authority
from support.gateway import SocketGateway, open_socket_gateway
from support.upstream import ScriptedUpstream

pytestmark = pytest.mark.anyio

Open = Callable[[], AbstractAsyncContextManager[SocketGateway]]

M = '{"model":"m"}'
UPGRADE = "Connection: Upgrade\r\nUpgrade: loud\r\n"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The gateway's own loop."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Somebody who issues certificates."""
    return Authority(tmp_path / "authority")


@pytest.fixture(params=["unix", "tls"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, authority: Authority) -> Open:
    """Return what opens a gateway before an engine that is reached in one of the ways."""
    if request.param == "unix":
        upstream = ScriptedUpstream(socket_path=tmp_path / "engine.sock")
        return lambda: open_socket_gateway(upstream=upstream)
    upstream = ScriptedUpstream(certificate=authority.server_context("localhost"))
    return lambda: open_socket_gateway(upstream=upstream, ca_file=authority.ca_file)


async def test_answer_comes_whole_and_the_connection_is_kept(opened: Open) -> None:
    """The engine is told a host that makes sense, and its own key."""
    async with opened() as gateway, gateway.connect() as client:
        for _ in range(3):
            await client.post(M)
            answer = await client.read()
            assert answer.status == 200
        received = gateway.upstream.received
    assert {request.connection for request in received} == {1}
    port = gateway.upstream.port
    assert received[0].header("host") == (f"localhost:{port}" if port else "localhost")
    assert received[0].header("authorization") == "Bearer engine-key"
    assert json.loads(answer.body)["body"] == M


async def test_ten_megabytes_arrive_whole(opened: Open) -> None:
    """Up and down; a chunk is not a record."""
    body = '{"model":"m","x":"' + "y" * 10_000_000 + '"}'
    async with opened() as gateway, gateway.connect() as client:
        await client.post(body)
        answer = await client.read()
    assert json.loads(answer.body)["body"] == body


async def test_stream_is_not_held_back(opened: Open) -> None:
    """An event is there before the engine goes on."""
    async with opened() as gateway, gateway.connect() as client:
        await client.post('{"model":"m","do":"gated_stream"}')
        await client.read_until(b"data: 0\n\n")
        gateway.upstream.gate("go on").set()
        answer = await client.read()
    assert answer.whole and answer.body == b"data: 0\n\ndata: 1\n\n"


async def test_reader_that_stalls_holds_the_engine_back(opened: Open) -> None:
    """What the client does not read, the engine cannot send."""
    async with opened() as gateway, gateway.connect() as client:
        gateway.upstream.unasked, gateway.upstream.events = "events_for_ever", [b"x" * 16_384]
        await client.post('{"model":"m","do":"events_for_ever"}')
        await client.read_until(b"xxx")
        seen = -1
        while seen != gateway.upstream.sent:
            seen = gateway.upstream.sent
            await anyio.sleep(0.05)
        assert 0 < seen < 2_000


async def test_tunnel_carries_bytes_both_ways(opened: Open) -> None:
    """Until the engine ends it."""
    async with opened() as gateway, gateway.connect() as client:
        await client.send(f"GET /upstream/m/ws HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n")
        assert (await client.read(head_only=True)).status == 101
        await client.send(b"hello")
        await client.read_until(b"HELLO")
        await client.send(b"bye")
        client.buffer = b""
        assert await client.at_end()


async def test_engine_that_dies_between_events_ends_the_stream_with_an_error(
    opened: Open,
) -> None:
    """As on a port: nobody takes a part for the whole."""
    async with opened() as gateway, gateway.connect() as client:
        await client.post('{"model":"m","do":"die_in_stream"}')
        answer = await client.read()
    assert answer.body.startswith(b"data: 0\n\ndata: {") and b"engine_died" in answer.body


@pytest.mark.parametrize("script", ["die_in_chunk", "die_in_body", "die_in_plain_chunks"])
async def test_engine_that_dies_in_an_answer_is_a_broken_transfer(
    opened: Open, script: str
) -> None:
    """The connection is cut before what was promised has come."""
    async with opened() as gateway, gateway.connect() as client:
        await client.post(f'{{"model":"m","do":"{script}"}}')
        assert not (await client.read()).whole


async def test_engine_that_closes_before_it_answers_is_tried_once_more(opened: Open) -> None:
    """The client never knows."""
    async with opened() as gateway, gateway.connect() as client:
        await client.post('{"model":"m","do":"close_once"}')
        assert (await client.read()).body == b"second time"


async def test_client_that_leaves_frees_the_engine(opened: Open) -> None:
    """Its connection is closed."""
    async with opened() as gateway:
        async with gateway.connect() as client:
            await client.post('{"model":"m","do":"stream_until_gone"}')
            await client.read_until(b"data: 0")
        await gateway.upstream.gone.wait()


async def test_ollama_clients_are_answered_too(opened: Open) -> None:
    """By another way through the gateway, to the same server."""
    said = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}
    async with opened() as gateway, gateway.connect() as client:
        gateway.upstream.unasked = "answer"
        gateway.upstream.events = [json.dumps(said).encode()]
        body = {"model": "m", "messages": [{"role": "user", "content": "?"}], "stream": False}
        await client.post(json.dumps(body), path="/api/chat")
        answer = await client.read()
    assert json.loads(answer.body)["message"]["content"] == "yes"


async def test_socket_that_is_gone_is_named() -> None:
    """After the second attempt."""
    missing = Path("/nowhere/engine.sock")
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        gateway.upstream.socket_path = missing
        await client.post(M)
        answer = await client.read()
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"]) == (502, "engine_died")
    assert str(missing) in error["message"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat", "/upstream/m/ws"])
@pytest.mark.parametrize(
    ("name", "trusts", "reason"),
    [
        ("localhost", False, "unable to get local issuer certificate"),
        ("other.example", True, "certificate is not valid for 'localhost'"),
        ("localhost", None, "ca_file /nowhere/ca.pem cannot be read: No such file"),
    ],
)
async def test_engine_with_a_wrong_certificate_is_sent_nothing(
    authority: Authority, path: str, name: str, trusts: bool | None, reason: str
) -> None:
    """The error names the server, what is wrong with it, and the setting that helps."""
    logging.getLogger("anyio.streams.tls").setLevel(logging.CRITICAL)
    upstream = ScriptedUpstream(certificate=authority.server_context(name))
    ca_file = {True: authority.ca_file, False: None, None: Path("/nowhere/ca.pem")}[trusts]
    async with open_socket_gateway(upstream=upstream, ca_file=ca_file) as gateway:
        async with gateway.connect() as client:
            if "upstream" in path:
                await client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n")
            else:
                await client.post(
                    '{"model":"m","messages":[{"role":"u","content":"?"}]}', path=path
                )
            answer = await client.read()
        assert gateway.upstream.received == []
        assert gateway.serving.starts == ["m"]
    said = json.loads(answer.body)["error"]
    message = said if "/api/" in path else said["message"]
    assert answer.status == 502
    for part in (f"https://localhost:{upstream.port}", reason, "ca_file"):
        assert part in message


async def test_path_of_a_base_url_comes_before_every_path(authority: Authority) -> None:
    """A server may be reached behind another's."""

    class Prefixed(ScriptedUpstream):
        @property
        def base_url(self) -> str:
            return f"{super().base_url}/servers/one/"

    upstream = Prefixed(certificate=authority.server_context("localhost"))
    async with open_socket_gateway(upstream=upstream, ca_file=authority.ca_file) as gateway:
        async with gateway.connect() as client:
            await client.post(M)
            await client.read()
            await client.send("GET /upstream/m/props?a=b HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await client.read()
    assert [request.head.split(b" ")[1] for request in upstream.received] == [
        b"/servers/one/v1/chat/completions",
        b"/servers/one/props?a=b",
    ]
