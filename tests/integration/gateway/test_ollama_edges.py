"""Ollama's API where it meets the rest: refusals before it is reached, ids, sessions, counts."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
from support.gateway import Answer, RawClient, SocketGateway, open_socket_gateway
from support.metrics import Scrape

from gglib.domain.events import RequestFinished
from gglib.gateway.relay.limits import Limits
from gglib.services.routing.planners import CountPlanner

CHAT = "/api/chat"
HELLO = [{"role": "user", "content": "hi"}]
USAGE = {"prompt_tokens": 9, "completion_tokens": 7}
TIMINGS = {"prompt_ms": 10.0, "predicted_ms": 100.0}
MINE = "X-Request-Id: mine\r\n"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The gateway's own loop."""
    return "asyncio", {"use_uvloop": True}


def event(content: str = "", *, finish: str | None = None, **more: Any) -> bytes:
    """Return one event of a streamed chat."""
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    return b"data: %b\n\n" % json.dumps({"choices": [choice], **more}).encode()


WHOLE = [event("a"), event(finish="stop", usage=USAGE, timings=TIMINGS), b"data: [DONE]\n\n"]


def streaming(gateway: SocketGateway, *events: bytes) -> None:
    """Have the engine stream these to whoever asks."""
    gateway.upstream.unasked = "events"
    gateway.upstream.events = list(events)


async def ask(client: RawClient, path: str = CHAT, extra: str = "", **fields: Any) -> Answer:
    """Ask for a chat of model m, unless the fields say otherwise."""
    body = {"model": "m", **({"messages": HELLO} if path == CHAT else {}), **fields}
    await client.post(json.dumps(body), path=path, extra=extra)
    return await client.read()


async def scrape(gateway: SocketGateway) -> Scrape:
    """Return what /metrics tells now, on a connection of its own."""
    async with gateway.connect() as client:
        await client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return Scrape((await client.read()).body.decode())


# Refusals before the request is Ollama's

HEAD = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        (f"{HEAD}Content-Length: 2\r\n\r\n{{}}", 401, "no key was sent"),
        (f"{HEAD}Host: localhost\r\n\r\n", 400, "two host headers"),
        (f"{HEAD}Origin: http://evil.example\r\nContent-Length: 0\r\n\r\n", 403, "evil.example"),
        (
            f"{HEAD}Authorization: Bearer k\r\nContent-Length: 2000\r\n\r\n",
            413,
            "larger than 1000 bytes",
        ),
        (f"{HEAD}A: {'x' * 3000}\r\n\r\n", 431, "larger than 2000 bytes"),
        (f"{HEAD}Content-Le", 408, "took too long"),
        (f"{HEAD}Authorization: Bearer k\r\nContent-Length: 9\r\n\r\n{{", 408, "took too long"),
        ("GET /api/%74ags HTTP/1.1\r\nHost: localhost\r\n\r\n", 401, "no key was sent"),
    ],
)
async def test_refusal_of_any_layer_is_told_in_ollamas_shape(
    sent: str, status: int, words: str
) -> None:
    """A text under ``error``, whoever refuses."""
    limits = Limits(
        max_body_bytes=1000, max_header_bytes=2000, header_timeout_s=0.1, stall_timeout_s=0.1
    )
    async with open_socket_gateway(limits=limits, api_keys=("k",)) as gateway:
        async with gateway.connect() as client:
            await client.send(sent)
            answer = await client.read()
    assert answer.status == status
    told = json.loads(answer.body)
    assert list(told) == ["error"]
    assert words in told["error"]


async def test_refusal_elsewhere_is_told_in_openais_shape() -> None:
    """Also on a connection that has spoken Ollama's, and where there is no request at all."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        streaming(gateway, *WHOLE)
        assert (await ask(client)).status == 200
        await client.send("GET /admin/queue HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert json.loads((await client.read()).body)["error"]["code"] == "invalid_api_key"
        await client.send("\x00\x01\r\n\r\n")
        assert json.loads((await client.read()).body)["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/nowhere"])
async def test_refusal_carries_the_clients_own_id(path: str) -> None:
    """As every answer does, also where the rest of the body never comes."""
    limits = Limits(stall_timeout_s=0.1)
    async with open_socket_gateway(limits=limits, api_keys=("k",)) as gateway:
        async with gateway.connect() as client:
            await client.post("{}", path=path, extra=MINE)
            refused = await client.read()
            key = "Authorization: Bearer k\r\nContent-Length: 9\r\n"
            await client.send(f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{MINE}{key}\r\n{{")
            late = await client.read()
    assert (refused.status, refused.header("x-request-id")) == (401, "mine")
    assert late.header("x-request-id") == "mine"
    assert late.status == (405 if path == "/v1/models" else 404 if path == "/nowhere" else 408)


@pytest.mark.parametrize(
    "wrong",
    [{"options": {"top_k": []}}, {"format": 5}, {"think": "a lot"}, {"tools": [None]}],
)
async def test_mistake_is_refused_whether_an_answer_is_wanted_or_not(wrong: dict[str, Any]) -> None:
    """A request that would only load the model loads nothing then."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        asked = (
            [{"messages": HELLO}] if "tools" in wrong else [{"messages": HELLO}, {"messages": []}]
        )
        for fields in asked:
            assert (await ask(client, **fields, **wrong)).status == 400
        assert gateway.serving.starts == []


# What an engine is told of the client


async def test_engine_gets_the_requests_id() -> None:
    """The client's, or the one that was made, which the answer has, too."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        streaming(gateway, *WHOLE)
        ids = [(await ask(client, extra=extra)).header("x-request-id") for extra in (MINE, "")]
        assert [each.header("x-request-id") for each in gateway.upstream.received] == ids
    assert ids[0] == "mine"
    assert (ids[1] or "").startswith("req_")


@pytest.mark.parametrize(("header", "keeps"), [(b"x-session-id", True), (b"", False)])
async def test_session_keeps_a_client_on_its_server(header: bytes, keeps: bool) -> None:
    """Of two idle servers the first is taken, but for a session that used the second."""
    own = "X-Session-Id: mine\r\n"
    async with open_socket_gateway(
        planner=CountPlanner(2), replicas=2, session_header=header
    ) as gateway:
        streaming(gateway, *WHOLE)
        async with gateway.connect() as other, gateway.connect() as client:
            await other.post('{"model":"one","do":"gated_stream"}')
            await gateway.upstream.reach("streaming").wait()
            assert (await ask(client, model="one", extra=own)).status == 200
            gateway.upstream.gate("go on").set()
            assert (await other.read()).status == 200
            before = requests_by_server(gateway)
            assert (await ask(client, model="one", extra=own)).status == 200
            after = requests_by_server(gateway)
        moved = [name for name, count in after.items() if count > before[name]]
        assert moved == (["server-2"] if keeps else ["server-1"])
        told = [each.header("x-session-id") for each in gateway.upstream.received[1:]]
        assert told == ([*["mine"] * 2] if keeps else [None, None])


def requests_by_server(gateway: SocketGateway) -> dict[str, int]:
    """Return how many requests each server was given."""
    return {
        view.server.server_id: view.requests
        for view in gateway.router.residents()
        if view.server is not None
    }


# Counts


async def test_request_counts_under_the_model_that_it_names() -> None:
    """By the catalog's name, with its tokens, its wait, and the time to its first line."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        streaming(gateway, *WHOLE)
        for fields in ({}, {"model": "m-alias"}, {"model": "m:latest", "stream": False}):
            assert (await ask(client, **fields)).status == 200
        assert (await ask(client, "/api/show")).status == 200
        found = await scrape(gateway)
    assert found("gglib_requests_total", route=CHAT, model="m", status="200") == 3
    assert found("gglib_requests_total", route="/api/show", model="m", status="200") == 1
    assert found("gglib_request_seconds_count", route=CHAT, model="m") == 3
    assert found("gglib_prompt_tokens_total", model="m") == 27
    assert found("gglib_completion_tokens_total", model="m") == 21
    assert found("gglib_tokens_per_second_sum", model="m") == pytest.approx(3 * 70.0)
    assert found("gglib_queue_wait_seconds_count", model="m") == 3
    assert found("gglib_first_byte_seconds_count", model="m") == 3


async def test_embedding_counts_the_tokens_of_its_texts() -> None:
    """It writes none."""
    said = b'{"data":[{"embedding":[1.0],"index":0}],"usage":{"prompt_tokens":4}}'
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        gateway.upstream.unasked = "answer"
        gateway.upstream.events = [said]
        assert (await ask(client, "/api/embed", input="a")).status == 200
        found = await scrape(gateway)
    assert found("gglib_requests_total", route="/api/embed", model="m", status="200") == 1
    assert found("gglib_prompt_tokens_total", model="m") == 4
    assert found("gglib_completion_tokens_total", model="m") == 0


async def test_names_that_clients_make_up_are_no_labels() -> None:
    """Nor is a body that names none."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        assert (await ask(client, model="evil")).status == 404
        assert (await ask(client, model="")).status == 400
        await client.post("nonsense", path=CHAT)
        assert (await client.read()).status == 400
        found = await scrape(gateway)
    assert found.labels("model") == {"unknown"}
    assert found("gglib_requests_total", route=CHAT, model="unknown", status="400") == 2
    # A refusal is no first byte of an answer.
    assert found("gglib_first_byte_seconds_count", model="unknown") == 0


async def test_engine_that_counts_nonsense_is_not_believed() -> None:
    """A counter never goes back."""
    wrong = {"prompt_tokens": -5, "completion_tokens": 10**15}
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        last = event(finish="stop", usage=wrong, timings={"predicted_ms": -3.0})
        streaming(gateway, event("a"), last, b"data: [DONE]\n\n")
        assert (await ask(client)).status == 200
        found = await scrape(gateway)
    assert found("gglib_prompt_tokens_total", model="m") == 0
    assert found("gglib_completion_tokens_total", model="m") == 0
    assert found("gglib_tokens_per_second_count", model="m") == 0


async def test_access_log_tells_what_became_of_a_stream() -> None:
    """Whole, broken off by its engine, or left by its client."""
    finished: list[RequestFinished] = []
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        gateway.shared.meter.set_log(finished.append)
        streaming(gateway, *WHOLE)
        await ask(client, extra=MINE)
        streaming(gateway, event("a"))
        assert b'"error"' in (await ask(client)).body
        streaming(gateway, event("a"), b"", *WHOLE)
        async with gateway.connect() as leaving:
            await leaving.post(json.dumps({"model": "m", "messages": HELLO}), path=CHAT)
            await leaving.read_until(b'"content":"a"')
        with anyio.fail_after(5):
            while len(finished) < 3:
                await anyio.sleep(0.002)
    whole, broken, left = finished
    assert (whole.model_name, whole.request_id, whole.status) == ("m", "mine", 200)
    assert (whole.prompt_tokens, whole.completion_tokens) == (9, 7)
    assert 0 < (whole.first_byte_s or 0) <= whole.duration_s
    for each, complete in ((whole, True), (broken, False), (left, False)):
        assert (each.status, each.streamed, each.complete) == (200, True, complete)
