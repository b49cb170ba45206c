"""Ollama's API before a scripted engine: the wire, the failures, and clients that leave."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from support.gateway import Answer, RawClient, SocketGateway, open_socket_gateway

from gglib.domain.inference import InferenceConfig
from gglib.errors import StartFailed
from gglib.gateway.relay.body_rules import RuleBook
from gglib.gateway.relay.limits import Limits
from gglib.services.routing.planners import CountPlanner

pytestmark = pytest.mark.anyio

HELLO = [{"role": "user", "content": "hi"}]
#: The engine knows of most clients that leave within this; of all, within a second.
NOTICE_S = 0.1
DEADLINE_S = 10.0


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The gateway's own loop."""
    return "asyncio", {"use_uvloop": True}


def event(delta: dict[str, Any] | None = None, *, finish: str | None = None, **more: Any) -> bytes:
    """Return one event of a streamed chat."""
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    return b"data: %b\n\n" % json.dumps({"choices": choices, **more}).encode()


def text(content: str) -> bytes:
    """Return an event with a piece of text."""
    return event({"content": content})


END = [event(finish="stop"), b"data: [DONE]\n\n"]
WHOLE = [text("a"), text("b"), *END]


@asynccontextmanager
async def gateway_of(
    *events: bytes, script: str = "events", **more: Any
) -> AsyncIterator[SocketGateway]:
    """Run a gateway whose engine streams these events to whoever asks."""
    async with open_socket_gateway(**more) as gateway:
        gateway.upstream.unasked = script
        gateway.upstream.events = list(events)
        yield gateway


async def ask(
    client: RawClient, path: str = "/api/chat", *, extra: str = "", **fields: Any
) -> Answer:
    """Ask, and return the answer."""
    await send(client, path, extra=extra, **fields)
    return await client.read()


async def send(
    client: RawClient, path: str = "/api/chat", *, extra: str = "", **fields: Any
) -> None:
    """Ask for a chat of model m, unless the fields say otherwise."""
    if path == "/api/chat":
        fields.setdefault("messages", HELLO)
    await client.post(json.dumps({"model": "m", **fields}), path=path, extra=extra)


def lines(answer: Answer) -> list[dict[str, Any]]:
    """Return the objects of a streamed answer."""
    return [json.loads(line) for line in answer.body.splitlines()]


def in_flight(gateway: SocketGateway) -> int:
    """Return how many leases are held."""
    return sum(view.in_flight for view in gateway.router.residents())


async def until(holds: Callable[[], bool], within_s: float = DEADLINE_S) -> None:
    """Return when ``holds`` does, which must be soon."""
    with anyio.fail_after(within_s):
        while not holds():
            await anyio.sleep(0.002)


# Answers


async def test_stream_is_lines_of_json_unless_it_is_not_wanted() -> None:
    """Streaming is Ollama's default; the whole says what the pieces say."""
    async with gateway_of(*WHOLE) as gateway, gateway.connect() as client:
        streamed = await ask(client)
        whole = await ask(client, stream=False)
    assert streamed.header("content-type") == "application/x-ndjson"
    *parts, last = lines(streamed)
    assert [part["message"]["content"] for part in parts] == ["a", "b"]
    assert [part["done"] for part in parts] == [False, False]
    assert (last["done"], last["done_reason"], last["message"]["content"]) == (True, "stop", "")
    assert whole.header("content-type") == "application/json; charset=utf-8"
    answer = json.loads(whole.body)
    assert answer["message"] == {"role": "assistant", "content": "ab"}
    assert (answer["done"], answer["done_reason"], answer["model"]) == (True, "stop", "m")
    assert answer["total_duration"] >= answer["load_duration"] >= 0


async def test_engine_gets_its_key_and_the_models_own_name() -> None:
    """Whatever name the client used; and nothing of the client's headers."""
    async with gateway_of(*WHOLE, api_keys=("k",)) as gateway, gateway.connect() as client:
        for name in ("m", "m:latest", "m-alias", "m-alias:latest"):
            answer = await ask(client, model=name, extra="Authorization: Bearer k\r\n")
            assert lines(answer)[-1]["model"] == name
        refused = await ask(client)
    assert refused.status == 401
    for request in gateway.upstream.received:
        assert request.header("authorization") == "Bearer engine-key"
        assert request.header("cookie") is None
        asked = json.loads(request.body)
        assert (asked["model"], asked["stream"]) == ("m", True)
        assert asked["stream_options"] == {"include_usage": True}


async def test_first_piece_leaves_before_the_second_comes() -> None:
    """Nothing is held back."""
    async with gateway_of(text("a"), b"", text("b"), *END) as gateway:
        async with gateway.connect() as client:
            await send(client)
            await client.read_until(b'"content":"a"')
            gateway.upstream.gate("go on").set()
            answer = await client.read()
    assert len(lines(answer)) == 3


async def test_thinking_and_tools_are_told_as_ollama_tells_them() -> None:
    """Fragments of a call are gathered; it comes before the end, in a line of its own."""
    call = {"index": 0, "id": "c1", "function": {"name": "add", "arguments": '{"a"'}}
    rest = {"index": 0, "function": {"arguments": ": 1}"}}
    events = [
        event({"reasoning_content": "hm"}),
        event({"tool_calls": [call]}),
        event({"tool_calls": [rest]}),
        event(finish="tool_calls"),
    ]
    async with gateway_of(*events) as gateway, gateway.connect() as client:
        thought, called, last = lines(await ask(client))
        whole = json.loads((await ask(client, stream=False)).body)
    made = [{"id": "c1", "function": {"index": 0, "name": "add", "arguments": {"a": 1}}}]
    assert thought["message"]["thinking"] == "hm"
    assert (called["message"]["tool_calls"], called["done"]) == (made, False)
    assert "tool_calls" not in last["message"]
    assert last["done_reason"] == "stop"
    assert whole["message"] == {
        "role": "assistant",
        "content": "",
        "thinking": "hm",
        "tool_calls": made,
    }


async def test_engine_that_does_not_stream_is_understood() -> None:
    """Its answer is one piece; calls of tools have no numbers there."""
    calls = [{"id": name, "function": {"name": name, "arguments": "{}"}} for name in "ab"]
    message = {"role": "assistant", "content": "hi", "tool_calls": calls}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    said = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 4}}).encode()
    async with gateway_of(said, script="answer") as gateway, gateway.connect() as client:
        first, called, last = lines(await ask(client))
        whole = json.loads((await ask(client, stream=False)).body)
    assert (first["message"]["content"], last["prompt_eval_count"]) == ("hi", 4)
    assert [each["function"]["name"] for each in called["message"]["tool_calls"]] == ["a", "b"]
    assert whole["message"]["content"] == "hi"


async def test_settings_say_what_requests_leave_unsaid() -> None:
    """As of every request for text."""
    rules = RuleBook(InferenceConfig(temperature=0.25, top_k=7))
    async with gateway_of(*WHOLE, rule_book=rules) as gateway, gateway.connect() as client:
        await ask(client, options={"top_k": 3})
        sent = json.loads(gateway.upstream.received[0].body)
    assert (sent["temperature"], sent["top_k"]) == (0.25, 3)


async def test_line_is_a_line_to_every_reader() -> None:
    """Python's ``splitlines`` also breaks where JSON does not; httpx reads lines so."""
    odd = "a\u2028b\u2029c\x85d"
    async with gateway_of(event({"content": odd}), *END) as gateway, gateway.connect() as client:
        answer = await ask(client)
    first, _ = answer.body.decode().splitlines()
    assert json.loads(first)["message"]["content"] == odd


async def test_empty_request_loads_a_model_or_lets_it_go() -> None:
    """As ``ollama run`` and ``ollama stop`` ask; the engine is asked nothing."""
    async with gateway_of(*WHOLE) as gateway, gateway.connect() as client:
        loaded = json.loads((await ask(client, messages=[])).body)
        assert gateway.serving.starts == ["m"]
        again = json.loads((await ask(client, "/api/generate")).body)
        gone = json.loads((await ask(client, "/api/generate", keep_alive=0)).body)
        await until(lambda: gateway.serving.stops == ["m"])
        never_there = json.loads((await ask(client, messages=[], keep_alive="0s")).body)
    assert (loaded["done_reason"], loaded["message"]["content"]) == ("load", "")
    assert (again["done_reason"], again["response"]) == ("load", "")
    assert gone["done_reason"] == never_there["done_reason"] == "unload"
    assert gateway.serving.starts == ["m"]
    assert gateway.upstream.received == []


async def test_keep_alive_holds_from_the_answer_on() -> None:
    """While the model is at work it stays, whatever was said."""
    async with gateway_of(text("a"), b"", *END) as gateway, gateway.connect() as client:
        await send(client, keep_alive=0)
        await client.read_until(b'"content":"a"')
        (view,) = gateway.router.residents()
        assert (view.ttl_s, view.closing) == (0, None)
        gateway.upstream.gate("go on").set()
        await client.read()
        await until(lambda: gateway.serving.stops == ["m"])
        for said, meant in (("5m", 300), (-1, None), ("1h30m", 5400)):
            await ask(client, keep_alive=said)
            assert [each.ttl_s for each in gateway.router.residents()] == [meant]
        await ask(client)
        assert [each.ttl_s for each in gateway.router.residents()] == [5400]


async def test_models_are_listed_and_shown() -> None:
    """What is known of them, and which are in memory."""
    async with gateway_of(*WHOLE) as gateway, gateway.connect() as client:
        await client.send("GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n")
        tags = json.loads((await client.read()).body)["models"]
        await client.send("GET /api/ps HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert json.loads((await client.read()).body) == {"models": []}
        await ask(client, keep_alive="10m")
        await client.send("GET /api/ps HTTP/1.1\r\nHost: localhost\r\n\r\n")
        (running,) = json.loads((await client.read()).body)["models"]
        shown = json.loads((await ask(client, "/api/show", model="m:latest")).body)
        older = json.loads((await ask(client, "/api/show", model="", name="m")).body)
    assert [tag["name"] for tag in tags] == ["m", "n", "one"]
    assert (running["name"], running["digest"]) == ("m", tags[0]["digest"])
    assert shown == older
    assert shown["capabilities"] == ["completion"]


async def test_ollamas_own_command_finds_somebody() -> None:
    """It asks with HEAD before anything else, and what version this is."""
    async with gateway_of() as gateway, gateway.connect() as client:
        await client.send("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await client.read(head_only=True)).status == 200
        await client.send("GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n")
        version = json.loads((await client.read()).body)["version"]
    assert tuple(map(int, version.split("."))) >= (0, 6, 4)


async def test_embeddings_come_in_order_shortened_and_of_length_one() -> None:
    """``/api/embeddings`` is the older spelling for one text. An empty one has no vector."""
    data = [{"index": 1, "embedding": [0.0, 2.0, 1.0]}, {"index": 0, "embedding": [3.0, 4.0, 9.0]}]
    said = json.dumps({"data": data, "usage": {"prompt_tokens": 5}}).encode()
    async with gateway_of(said, script="answer") as gateway, gateway.connect() as client:
        both = json.loads((await ask(client, "/api/embed", input=["a", "b"])).body)
        short = json.loads((await ask(client, "/api/embed", input="a", dimensions=2)).body)
        none = json.loads((await ask(client, "/api/embed", input="")).body)
        old = json.loads((await ask(client, "/api/embeddings", prompt="a")).body)
        old_none = json.loads((await ask(client, "/api/embeddings")).body)
    assert both["embeddings"] == [[3.0, 4.0, 9.0], [0.0, 2.0, 1.0]]
    assert both["prompt_eval_count"] == 5
    assert short["embeddings"] == [[0.6, 0.8], [0.0, 1.0]]
    assert none["embeddings"] == old_none["embedding"] == []
    assert old["embedding"] == [3.0, 4.0, 9.0]
    assert [json.loads(each.body)["input"] for each in gateway.upstream.received] == [
        ["a", "b"],
        ["a"],
        ["a"],
    ]


# Errors


@pytest.mark.parametrize(
    ("path", "fields", "status", "words"),
    [
        ("/api/chat", {"model": "nobody"}, 404, "model 'nobody' not found"),
        ("/api/chat", {"model": "nobody:latest"}, 404, "model 'nobody:latest' not found"),
        ("/api/generate", {"model": "nobody"}, 404, "model 'nobody' not found"),
        ("/api/embed", {"model": "nobody", "input": "a"}, 404, "model 'nobody' not found"),
        ("/api/show", {"model": "nobody"}, 404, "model 'nobody' not found"),
        ("/api/chat", {"model": ""}, 400, "model is required"),
        ("/api/chat", {"messages": [{"role": 1}]}, 400, "Expected `str`, got `int`"),
        ("/api/chat", {"options": {"top_k": "many"}}, 400, 'option "top_k" must be an integer'),
        ("/api/chat", {"format": "yaml"}, 400, 'invalid format: "yaml"'),
        ("/api/chat", {"keep_alive": "soon"}, 400, "keep_alive 'soon' is no duration"),
        ("/api/chat", {"think": "hard"}, 400, 'invalid think value: "hard"'),
        (
            "/api/chat",
            {"messages": [{"role": "user", "images": ["not base64!"]}]},
            400,
            "an image is not base64",
        ),
        ("/api/generate", {"prompt": "a", "template": "{{}}"}, 400, "template is not supported"),
        ("/api/generate", {"prompt": "a", "context": [1]}, 400, "context is not supported"),
        (
            "/api/generate",
            {"prompt": "a", "raw": True, "system": "b"},
            400,
            "raw mode does not support template, system, or context",
        ),
        ("/api/generate", {"prompt": "a", "suffix": "b", "images": ["AA=="]}, 400, "images"),
        ("/api/embed", {"input": "a", "dimensions": -1}, 400, "dimensions"),
        ("/api/embed", {"input": [1]}, 400, "Expected `str`"),
        ("/api/pull", {}, 404, "gglib has no POST /api/pull"),
        ("/api/tags", {}, 405, "Method Not Allowed"),
    ],
)
async def test_mistake_is_told_in_ollamas_shape(
    path: str, fields: dict[str, Any], status: int, words: str
) -> None:
    """A text under ``error``; and the connection goes on."""
    async with gateway_of(*WHOLE) as gateway, gateway.connect() as client:
        answer = await ask(client, path, **fields)
        assert lines(await ask(client))[-1]["done"]
    assert answer.status == status
    assert words in json.loads(answer.body)["error"]
    assert len(gateway.upstream.received) == 1


@pytest.mark.parametrize(("body", "words"), [(b"", "missing request body"), (b"{", "JSON")])
async def test_what_is_no_json_is_refused(body: bytes, words: str) -> None:
    """Also what is nested without end."""
    async with gateway_of() as gateway, gateway.connect() as client:
        await client.post(body, path="/api/chat")
        answer = await client.read()
        await client.post(b'{"tools":' + b"[" * 100_000, path="/api/chat")
        deep = await client.read()
    assert answer.status == deep.status == 400
    assert words in json.loads(answer.body)["error"]


async def test_body_beyond_the_limit_is_refused_announced_or_not() -> None:
    """In chunks, nobody knows beforehand."""
    async with gateway_of(limits=Limits(max_body_bytes=1000)) as gateway:
        async with gateway.connect() as client:
            await ask_large(client, "Content-Length: 2000\r\n\r\n" + "x" * 2000)
        async with gateway.connect() as client:
            chunk = "400\r\n" + "x" * 1024 + "\r\n"
            await ask_large(client, "Transfer-Encoding: chunked\r\n\r\n" + chunk * 2 + "0\r\n\r\n")


async def ask_large(client: RawClient, rest: str) -> None:
    """Send a body that is too large, and be told so."""
    await client.send("POST /api/chat HTTP/1.1\r\nHost: localhost\r\n" + rest)
    answer = await client.read()
    assert answer.status == 413
    assert b"larger than 1000 bytes" in answer.body


async def test_engine_that_refuses_is_quoted() -> None:
    """With its status, before anything was sent; also where it does not speak JSON."""
    said = b'{"error":{"code":400,"message":"too long","type":"x"}}'
    async with gateway_of(said, script="refuse") as gateway, gateway.connect() as client:
        answer = await ask(client)
        gateway.upstream.events = [b"nope"]
        plain = await ask(client)
        gateway.upstream.events = [b""]
        mute = await ask(client)
        assert in_flight(gateway) == 0
    assert (answer.status, json.loads(answer.body)) == (400, {"error": "too long"})
    assert json.loads(plain.body) == {"error": "nope"}
    assert "status 400" in json.loads(mute.body)["error"]


async def test_vectors_that_cannot_be_read_are_an_engines_failure() -> None:
    """It is not the client's."""
    for said in (b"{", b'{"data":[{"embedding":"AAAA"}]}'):
        async with gateway_of(said, script="answer") as gateway, gateway.connect() as client:
            answer = await ask(client, "/api/embed", input="a")
        assert answer.status == 502
        assert "cannot be read" in json.loads(answer.body)["error"]


@pytest.mark.parametrize("path", ["/api/chat", "/api/ps"])
async def test_bug_is_answered_and_logged(
    path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With its trace, which the client does not get."""
    async with gateway_of(*WHOLE) as gateway, gateway.connect() as client:

        def broken(*_: object, **__: object) -> None:
            raise RuntimeError("secret")

        for name in ("residents", "try_lease"):
            monkeypatch.setattr(type(gateway.router), name, broken)
        if path == "/api/ps":
            await client.send("GET /api/ps HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = await client.read()
        else:
            answer = await ask(client, path)
        monkeypatch.undo()
    assert answer.status == 500
    assert json.loads(answer.body) == {"error": "internal error; the gateway's log has the trace"}
    assert "RuntimeError: secret" in caplog.text


async def test_start_that_fails_is_told() -> None:
    """With the status and the headers that it has everywhere."""
    async with gateway_of() as gateway, gateway.connect() as client:
        gateway.serving.failure = StartFailed("m", 1, ("no memory",))
        first = await ask(client)
        second = await ask(client)
    assert (first.status, second.status) == (503, 503)
    assert "no memory" in json.loads(first.body)["error"]
    assert second.header("retry-after") is not None


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([text("a"), b"break"], "died"),
        ([text("a")], "its answer broke off"),
        ([text("a"), b'data: {"error":{"message":"bad"}}\n\n'], "bad"),
        ([text("a"), b'error: {"message":"bad"}\n\n'], "bad"),
        ([text("a"), b"data: {no json\n\n"], "cannot be read"),
    ],
)
async def test_failure_in_a_stream_is_its_last_line(events: list[bytes], words: str) -> None:
    """Never a clean-looking end; whoever wants the answer whole gets a status."""
    async with gateway_of(*events) as gateway, gateway.connect() as client:
        *parts, last = lines(await ask(client))
        whole = await ask(client, stream=False)
        assert in_flight(gateway) == 0
    assert [part["done"] for part in parts] == [False]
    assert words in last["error"]
    assert "done" not in last
    assert whole.status in (500, 502)
    assert words in json.loads(whole.body)["error"]


async def test_silent_engine_is_given_up() -> None:
    """Before its answer, and in it; not while it is the client that does not read."""
    limits = Limits(silence_timeout_s=0.1)
    async with gateway_of(script="hold", limits=limits) as gateway, gateway.connect() as client:
        before = await ask(client)
    async with gateway_of(text("a"), b"", limits=limits) as gateway:
        async with gateway.connect() as client:
            *_, last = lines(await ask(client))
    assert before.status == 502
    assert "said nothing" in json.loads(before.body)["error"]
    assert "said nothing" in last["error"]


async def test_engine_that_dies_before_its_answer_is_replaced_unseen() -> None:
    """Once; a request that is the death of a second one is refused."""
    script = "events_at_the_second_try"
    async with gateway_of(*WHOLE, script=script) as gateway, gateway.connect() as client:
        assert lines(await ask(client))[-1]["done"]
        assert len(gateway.upstream.received) == 2
        gateway.upstream.unasked = "close_first"
        answer = await ask(client)
        assert len(gateway.upstream.received) == 4
        gateway.serving.die()
        dead = await ask(client)
        assert in_flight(gateway) == 0
    assert answer.status == dead.status == 502


@pytest.mark.parametrize("events", [[], [text("a"), b""]])
@pytest.mark.parametrize("stream", [True, False])
async def test_answer_that_is_cut_by_force_says_so(events: list[bytes], stream: bool) -> None:
    """At once, before it begins and in its midst; what was stopped is not started again."""
    script = "events" if events else "hold"
    async with gateway_of(*events, script=script) as gateway, gateway.connect() as client:
        await send(client, stream=stream)
        await gateway.upstream.reach("streaming" if events else "held").wait()
        if events and stream:
            await client.read_until(b'"content":"a"')
        (view,) = gateway.router.residents()
        gateway.router.unload(view.model, cut=True)
        *_, last = lines(await client.read())
        assert in_flight(gateway) == 0
        assert gateway.serving.starts == ["m"]
    assert "unloaded by force" in last["error"]


async def test_engine_that_hangs_before_its_answer_is_replaced_unseen() -> None:
    """Once it is recycled."""
    async with gateway_of(*WHOLE, script="hold") as gateway, gateway.connect() as client:
        await send(client)
        await gateway.upstream.reach("held").wait()
        gateway.upstream.unasked = "events"
        gateway.router.recycle(gateway.serving.servers[0])
        answer = await client.read()
        assert gateway.serving.starts == ["m", "m"]
    assert lines(answer)[-1]["done"]


# Clients that leave, and clients that do not read


async def test_client_that_leaves_a_stream_frees_the_engine() -> None:
    """The engine's connection is closed, and its slot free."""
    took_s = []
    async with gateway_of(text("x" * 100), script="events_for_ever") as gateway:
        for number in range(1, 22):
            async with gateway.connect() as client:
                await send(client)
                await client.read_until(b"xxx")
                assert in_flight(gateway) == 1
            began = time.monotonic()
            await until(lambda: in_flight(gateway) == 0)
            await until(lambda number=number: gateway.upstream.disconnects == number)  # type: ignore[misc]
            took_s.append(time.monotonic() - began)
    assert sorted(took_s)[10] < NOTICE_S
    assert max(took_s) < 1


@pytest.mark.parametrize("stream", [True, False])
async def test_client_that_leaves_before_the_answer_frees_the_engine(stream: bool) -> None:
    """Also one that wants it whole: nothing was sent, and nobody waits."""
    async with gateway_of(script="hold") as gateway:
        async with gateway.connect() as client:
            await send(client, stream=stream)
            await gateway.upstream.reach("held").wait()
            assert in_flight(gateway) == 1
        with anyio.fail_after(1):
            await gateway.upstream.gone.wait()
            await until(lambda: in_flight(gateway) == 0)


async def test_client_that_leaves_in_its_own_request_is_forgotten() -> None:
    """Nothing was asked, and nobody is left to refuse."""
    async with gateway_of() as gateway:
        async with gateway.connect() as client:
            await client.send(
                "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
            )
            await until(lambda: gateway.server.own_answers == 1)
        await until(lambda: gateway.server.own_answers == 0)
        assert gateway.upstream.received == []


async def test_client_that_leaves_while_queued_is_forgotten() -> None:
    """One that waits for a slot, and one that waits for a load."""
    async with gateway_of(script="hold", planner=CountPlanner(2)) as gateway:
        async with gateway.connect() as first, gateway.connect() as second:
            await send(first, model="one")
            await gateway.upstream.reach("held").wait()
            await send(second, model="one")
            await until(lambda: len(gateway.router.queue()) == 1)
            await second.stream.aclose()
            await until(lambda: gateway.router.queue() == [], 1)
            gateway.serving.hold = anyio.Event()
            async with gateway.connect() as third:
                await send(third, model="m", messages=[])
                await until(lambda: gateway.serving.starts == ["one", "m"])
            await until(lambda: gateway.router.queue() == [], 1)


async def test_engine_is_held_back_while_the_client_does_not_read() -> None:
    """What is on its way is bounded, however long the answer."""
    async with gateway_of(text("x" * 8000), script="events_for_ever") as gateway:
        async with gateway.connect() as client:
            await send(client)
            await client.read_until(b"xxx")
            before = -1
            while gateway.upstream.sent != before:
                before = gateway.upstream.sent
                await anyio.sleep(0.3)
            assert before * 8000 < 32 * 1024 * 1024
            assert in_flight(gateway) == 1
            await client.stream.receive()
        await until(lambda: in_flight(gateway) == 0)


async def test_client_that_stops_reading_is_given_up() -> None:
    """After the same time as everywhere; its slot is free then."""
    limits = Limits(stall_timeout_s=0.3)
    async with gateway_of(text("x" * 8000), script="events_for_ever", limits=limits) as gateway:
        async with gateway.connect() as client:
            await send(client)
            await client.read_until(b"xxx")
            await until(lambda: in_flight(gateway) == 0)


async def test_pipelined_requests_are_answered_in_order() -> None:
    """Ours among relayed ones."""
    async with gateway_of(*WHOLE) as gateway, gateway.connect() as client:
        await send(client)
        await client.post('{"model":"m","do":"numbered","number":7}')
        await send(client, "/api/show")
        chat, relayed, shown = [await client.read() for _ in range(3)]
    assert lines(chat)[-1]["done"]
    assert relayed.body == b"answer 7"
    assert json.loads(shown.body)["capabilities"]


async def test_graceful_end_lets_a_stream_end() -> None:
    """Nothing new is taken."""
    async with gateway_of(text("a"), b"", *END) as gateway, gateway.connect() as client:
        await send(client)
        await client.read_until(b'"content":"a"')
        gateway.stop()
        gateway.upstream.gate("go on").set()
        assert lines(await client.read())[-1]["done"]


async def test_page_of_another_origin_cannot_unload_a_model() -> None:
    """Nor do anything else."""
    async with gateway_of(*WHOLE) as gateway, gateway.connect() as client:
        await ask(client)
        origin = "Origin: https://evil.example\r\n"
        answer = await ask(client, "/api/generate", keep_alive=0, extra=origin)
        assert [view.ttl_s for view in gateway.router.residents()] == [None]
    assert answer.status == 403
