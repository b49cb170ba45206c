"""What a stream is sent while it waits for a server, and how it ends then."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from support.gateway import Answer, RawClient, SocketGateway, open_socket_gateway

from gglib.errors import StartFailed
from gglib.gateway.relay.limits import Limits

pytestmark = pytest.mark.anyio

OFTEN = Limits(keepalive_comment_s=0.02)
COMMENT = b": waiting\n\n"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The gateway's own loop."""
    return "asyncio", {"use_uvloop": True}


def do(script: str, **more: object) -> str:
    """Return a body that asks for a stream."""
    return json.dumps({"model": "m", "stream": True, "do": script, **more})


@asynccontextmanager
async def loading(
    body: str, *, path: str = "/v1/chat/completions", version: str = "1.1", **how: object
) -> AsyncIterator[tuple[SocketGateway, RawClient]]:
    """Ask for a stream of a model whose load waits for ``gateway.serving.hold``."""
    async with (
        open_socket_gateway(**{"limits": OFTEN, **how}) as gateway,  # type: ignore[arg-type]
        gateway.connect() as client,
    ):
        gateway.serving.hold = anyio.Event()
        request = client.request(body, path=path).replace(b"HTTP/1.1", f"HTTP/{version}".encode())
        with anyio.fail_after(10):
            await client.send(request)
            yield gateway, client


async def until_received(client: RawClient, wanted: bytes) -> None:
    """Read until the client has got ``wanted``."""
    while wanted not in client.buffer:
        assert await client._more()


def events(answer: Answer) -> list[bytes]:
    """Return an answer's events without the comments."""
    assert COMMENT in answer.body
    return [each for each in answer.body.replace(COMMENT, b"").split(b"\n\n") if each]


async def test_waiting_stream_gets_comments_and_then_all_that_the_engine_says() -> None:
    """The head is ours, and leaves once; the connection goes on."""
    async with loading(do("stream")) as (gateway, client):
        await until_received(client, COMMENT)
        gateway.serving.hold.set()
        answer = await client.read()
        assert answer.status == 200
        assert answer.header("content-type") == "text/event-stream"
        assert answer.header("x-request-id")
        assert answer.whole
        assert events(answer) == [b"data: 0", b"data: 1", b"data: 2", b"data: [DONE]"]
        await client.post('{"model":"m"}')
        assert (await client.read()).status == 200


async def test_waiting_plain_request_gets_nothing_but_its_answer() -> None:
    """A comment would not be JSON."""
    async with loading('{"model": "m"}') as (gateway, client):
        with anyio.move_on_after(0.2):
            await client._more()
        assert client.buffer == b""
        gateway.serving.hold.set()
        assert (await client.read()).header("content-type") == "application/json"


async def test_quick_stream_has_no_comment() -> None:
    """Its head is the engine's."""
    async with open_socket_gateway(limits=OFTEN) as gateway, gateway.connect() as client:
        await client.post(do("stream"))
        answer = await client.read()
    assert answer.body.startswith(b"data: 0")


async def test_start_that_fails_after_a_comment_is_told_by_an_event() -> None:
    """The status has left; there is no [DONE]."""
    async with loading(do("stream")) as (gateway, client):
        await until_received(client, COMMENT)
        gateway.serving.failure = StartFailed("m", 1, ("no such tensor",))
        gateway.serving.hold.set()
        answer = await client.read()
        assert (answer.status, answer.whole) == (200, True)
        (event,) = events(answer)
        error = json.loads(event.removeprefix(b"data: "))["error"]
        assert error["code"] == "start_failed"
        assert "no such tensor" in error["message"]


async def test_without_comments_a_failed_start_has_its_true_status() -> None:
    """Who wants the status waits for it."""
    limits = Limits(keepalive_comment_s=None)
    async with loading(do("stream"), limits=limits) as (gateway, client):
        gateway.serving.failure = StartFailed("m", 1, ())
        gateway.serving.hold.set()
        assert (await client.read()).status == 503


async def test_anthropics_clients_are_told_of_a_failure_in_their_own_words() -> None:
    """An event without a name they would not see."""
    async with loading(do("stream"), path="/v1/messages") as (gateway, client):
        await until_received(client, COMMENT)
        gateway.serving.failure = StartFailed("m", 1, ())
        gateway.serving.hold.set()
        (event,) = events(await client.read())
    name, _, data = event.partition(b"\n")
    assert name == b"event: error"
    told = json.loads(data.removeprefix(b"data: "))
    assert (told["type"], told["error"]["type"]) == ("error", "overloaded_error")


async def test_refusal_of_the_engine_after_a_comment_is_told_by_an_event() -> None:
    """As the engine says it."""
    async with loading(do("status", status="400 Bad Request")) as (gateway, client):
        await until_received(client, COMMENT)
        gateway.serving.hold.set()
        answer = await client.read()
    assert (answer.status, answer.whole) == (200, True)
    assert events(answer) == [b"data: {}"]


async def test_engine_that_dies_in_a_stream_that_waited_is_told_as_ever() -> None:
    """By an event, and no [DONE]."""
    async with loading(do("die_in_stream")) as (gateway, client):
        await until_received(client, COMMENT)
        gateway.serving.hold.set()
        answer = await client.read()
    assert answer.whole
    first, last = events(answer)
    assert first == b"data: 0"
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "engine_died"


async def test_old_client_gets_comments_without_chunks() -> None:
    """HTTP/1.0 ends with its connection."""
    async with loading(do("stream"), version="1.0") as (gateway, client):
        await until_received(client, COMMENT)
        gateway.serving.hold.set()
        answer = await client.read()
    assert answer.header("transfer-encoding") is None
    assert answer.header("connection") == "close"
    assert events(answer)[-1] == b"data: [DONE]"


async def test_client_that_leaves_after_a_comment_is_forgotten() -> None:
    """Its load is called off."""
    async with open_socket_gateway(limits=OFTEN) as gateway:
        gateway.serving.hold = anyio.Event()
        async with gateway.connect() as client:
            await client.post(do("stream"))
            await until_received(client, COMMENT)
        with anyio.fail_after(5):
            while gateway.router.residents():
                await anyio.sleep(0)


async def test_chat_is_told_what_it_waits_for() -> None:
    """Its place in the line, and how the load goes, as reasoning; then the answer."""
    async with (
        open_socket_gateway(limits=OFTEN, loading_state=True) as gateway,
        gateway.connect() as first,
        gateway.connect() as second,
        gateway.connect() as third,
    ):
        gateway.serving.hold = anyio.Event()
        with anyio.fail_after(10):
            await first.post(do("gated_stream", model="one"))
            await until_received(first, b"loading one: ")
            gateway.serving.hold.set()
            await until_received(first, b"data: 0")
            await second.post(do("stream", model="one"))
            await until_received(second, b"waiting for one: you are next")
            await third.post(do("stream", model="one"))
            await until_received(third, b"waiting for one: 1 before you")
            gateway.upstream.gate("go on").set()
            answer = await second.read()
    chunks = answer.body.split(b"\n\n")
    told = json.loads(chunks[0].removeprefix(b"data: "))
    assert told["object"] == "chat.completion.chunk"
    assert told["choices"][0]["delta"]["reasoning_content"].startswith("waiting for one")
    assert chunks[-2] == b"data: [DONE]"


async def test_only_chats_are_told_what_they_wait_for() -> None:
    """Other streams have no place for it: they get comments."""
    path = "/v1/completions"
    async with loading(do("stream"), path=path, loading_state=True) as (gateway, client):
        await until_received(client, COMMENT)
        gateway.serving.hold.set()
        assert events(await client.read())[-1] == b"data: [DONE]"
