"""The OpenAI-compatible server that other projects' tests talk to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from gglib.testing import MockEngineServer
from gglib_adapters.runners.mock import EngineCondition

#: No proxy between, and no certificates to load.
PLAIN: Any = {"trust_env": False, "verify": False}

HELLO: list[Any] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "How are you?"},
]


@pytest.fixture
def server() -> Iterator[MockEngineServer]:
    """A server that echoes."""
    with MockEngineServer(model="qwen") as server:
        yield server


@pytest.fixture
def client(server: MockEngineServer) -> Iterator[OpenAI]:
    """The official client, before that server."""
    with sdk(server) as client:
        yield client


def sdk(server: MockEngineServer, key: str = "any", retries: int = 0) -> OpenAI:
    """Return a client of ``server``, through no proxy."""
    http = openai.DefaultHttpxClient(**PLAIN)
    base = f"{server.base_url}/v1"
    return OpenAI(base_url=base, api_key=key, http_client=http, max_retries=retries)


def ask(client: OpenAI, **changes: Any) -> Any:
    """Chat, once."""
    return client.chat.completions.create(**{"model": "m", "messages": HELLO} | changes)


def raw(server: MockEngineServer, request: bytes) -> bytes:
    """Return all that is answered to ``request`` until the connection ends."""
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=5)) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


def test_chat_echoes_the_last_user_message(client: OpenAI) -> None:
    """With usage in words, and the name of the server's model."""
    answer = ask(client)
    choice = answer.choices[0]
    assert choice.message.content == "You said: How are you?"
    assert (choice.message.role, choice.finish_reason, answer.model) == (
        "assistant",
        "stop",
        "qwen",
    )
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 5)


def test_chat_of_parts_echoes_their_text(client: OpenAI) -> None:
    """As vision clients send it."""
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {}}]
    answer = ask(client, messages=[{"role": "user", "content": parts}])
    assert answer.choices[0].message.content == "You said: What is this?"


def test_same_question_has_the_same_answer() -> None:
    """Down to its id, on another server too."""
    answers = []
    for _ in range(2):
        with MockEngineServer() as server, sdk(server) as client:
            answers.append(ask(client))
    assert answers[0] == answers[1]


def test_stream_is_role_then_words_then_reason(client: OpenAI) -> None:
    """Without usage, which was not asked for."""
    chunks = list(ask(client, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    words = [chunk.choices[0].delta.content for chunk in chunks[1:-1]]
    assert words == ["You", " said:", " How", " are", " you?"]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 6 + ["stop"]
    assert {chunk.usage for chunk in chunks} == {None}
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}


def test_stream_with_usage_ends_with_it(client: OpenAI) -> None:
    """In a chunk without choices."""
    *_, last = ask(client, stream=True, stream_options={"include_usage": True})
    assert (last.choices, last.usage.total_tokens) == ([], 10)


def test_stream_on_the_wire_is_events_until_done(server: MockEngineServer) -> None:
    """As clients without the official package read it."""
    body = {"messages": HELLO, "stream": True}
    url = f"{server.base_url}/v1/chat/completions"
    answer = httpx.post(url, json=body, **PLAIN)
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.text.startswith("data: {") and answer.text.endswith("\n\ndata: [DONE]\n\n")


def test_completion_continues_the_prompt(client: OpenAI) -> None:
    """Whole, and in chunks that together are the same."""
    whole = client.completions.create(model="m", prompt="one two")
    chunks = list(client.completions.create(model="m", prompt="one two", stream=True))
    assert (whole.object, whole.choices[0].text) == ("text_completion", "You said: one two")
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == "stop"
    several = client.completions.create(model="m", prompt=["one", "two"])
    assert several.choices[0].text == "You said: one two"


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_answer_is_cut_at_its_token_limit(client: OpenAI, field: str) -> None:
    """A word is a token."""
    answer = ask(client, **{field: 2})
    choice = answer.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("You said:", "length")
    assert answer.usage.completion_tokens == 2


@pytest.mark.parametrize("reply", ["  two  spaces\n", "", "words"])
def test_chunks_together_are_the_reply(reply: str) -> None:
    """Its spaces too."""
    with MockEngineServer(reply=reply) as server, sdk(server) as client:
        chunks = list(ask(client, stream=True))
        assert ask(client).choices[0].message.content == reply
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == reply


def test_reply_that_is_a_function_sees_the_body() -> None:
    """And may be changed while the server runs."""
    with MockEngineServer(reply=lambda body: body["user"]) as server, sdk(server) as client:
        assert ask(client, user="me").choices[0].message.content == "me"
        server.reply = "other"
        assert ask(client).choices[0].message.content == "other"


def test_reply_that_fails_is_a_server_error_that_says_so() -> None:
    """Its author reads what went wrong."""
    with MockEngineServer(reply=lambda body: body["nobody"]) as server, sdk(server) as client:
        with pytest.raises(openai.InternalServerError, match="KeyError"):
            ask(client)


def test_embeddings_are_the_same_in_both_encodings(client: OpenAI) -> None:
    """Of length one, the same for the same text and different for another."""
    texts = ["alpha", "beta", "alpha"]
    packed = client.embeddings.create(model="m", input=texts)
    plain = client.embeddings.create(model="m", input=texts, encoding_format="float")
    vectors = [entry.embedding for entry in plain.data]
    assert [entry.embedding for entry in packed.data] == vectors
    assert vectors[0] == vectors[2] != vectors[1]
    assert [entry.index for entry in plain.data] == [0, 1, 2]
    assert sum(number * number for number in vectors[0]) == pytest.approx(1.0)
    assert plain.usage.prompt_tokens == 3


@pytest.mark.parametrize("given", ["one text", [1, 2, 3]])
def test_embedding_of_one_text_has_the_dimensions_asked_for(client: OpenAI, given: Any) -> None:
    """Also of one given in tokens."""
    answer = client.embeddings.create(model="m", input=given, dimensions=3)
    assert [len(entry.embedding) for entry in answer.data] == [3]


def test_model_list_has_the_model(client: OpenAI) -> None:
    """And no other."""
    assert [model.id for model in client.models.list()] == ["qwen"]


def test_llama_servers_own_paths_are_answered(server: MockEngineServer) -> None:
    """Health, properties, tokens."""
    with httpx.Client(base_url=server.base_url, **PLAIN) as http:
        assert http.get("/health").json() == {"status": "ok"}
        properties = http.get("/props").json()
        tokens = http.post("/tokenize", json={"content": "a b a"}).json()["tokens"]
        assert http.get("/models?limit=1").json() == http.get("/v1/models").json()
    assert properties["default_generation_settings"]["n_ctx"] == 4096
    assert (len(tokens), tokens[0]) == (3, tokens[2])


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("chat/completions", b"{", "body"),
        ("chat/completions", b"[]", "body"),
        ("chat/completions", b"", "body"),
        ("chat/completions", b"{}", "messages"),
        ("chat/completions", b'{"messages": ["hi"]}', "messages"),
        ("chat/completions", b'{"messages": [], "max_tokens": 0}', "max_tokens"),
        ("completions", b"{}", "prompt"),
        ("embeddings", b"{}", "input"),
        ("embeddings", b'{"input": []}', "input"),
        ("embeddings", b'{"input": "a", "dimensions": 5000}', "dimensions"),
        ("embeddings", b'{"input": "a", "dimensions": true}', "dimensions"),
        ("embeddings", b'{"input": "a", "encoding_format": "hex"}', "encoding_format"),
        ("tokenize", b'{"content": 1}', "content"),
    ],
)
def test_request_that_is_wrong_is_refused_with_its_param(
    server: MockEngineServer, path: str, body: bytes, param: str
) -> None:
    """And the connection goes on."""
    with httpx.Client(base_url=f"{server.base_url}/v1", **PLAIN) as http:
        answer = http.post(path, content=body)
        assert http.get("/models").status_code == 200
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error["param"], error["type"]) == (param, "invalid_request_error")


def test_unknown_path_is_not_found_in_openais_shape(client: OpenAI) -> None:
    """The official client knows it."""
    with pytest.raises(openai.NotFoundError, match="there is no GET /files"):
        client.files.list()


def test_key_is_wanted_by_everything_but_health() -> None:
    """As llama-server does it."""
    with MockEngineServer(api_key="right") as server:
        assert httpx.get(f"{server.base_url}/health", **PLAIN).status_code == 200
        with sdk(server, "wrong") as client, pytest.raises(openai.AuthenticationError):
            client.models.list()
        with sdk(server, "right") as client:
            assert client.models.list().data


def test_loading_server_says_so_on_every_path(server: MockEngineServer, client: OpenAI) -> None:
    """In llama-server's words."""
    server.loading = True
    answer = httpx.get(f"{server.base_url}/health", **PLAIN)
    expected = {"message": "Loading model", "type": "unavailable_error", "param": None, "code": 503}
    assert (answer.status_code, answer.json()["error"]) == (503, expected)
    with pytest.raises(openai.InternalServerError, match="Loading model"):
        ask(client)
    server.loading = False
    assert ask(client).choices


def test_requests_are_recorded_as_they_came(server: MockEngineServer, client: OpenAI) -> None:
    """With headers by their lower-case names, and the body parsed."""
    ask(client, extra_headers={"X-Trace": "7"})
    httpx.get(f"{server.base_url}/nowhere?q=1", **PLAIN)
    first, second = server.requests
    assert (first.method, first.path) == ("POST", "/v1/chat/completions")
    assert first.headers["x-trace"] == "7"
    assert first.body == {"model": "m", "messages": HELLO}
    assert (second.method, second.path, second.body) == ("GET", "/nowhere?q=1", None)


def test_next_requests_fail_as_told(server: MockEngineServer, client: OpenAI) -> None:
    """So many, with those headers; health checks are not among them."""
    server.fail_next(429, "slow down", count=2, headers={"retry-after": "3"})
    assert httpx.get(f"{server.base_url}/health", **PLAIN).status_code == 200
    for _ in range(2):
        with pytest.raises(openai.RateLimitError, match="slow down") as caught:
            ask(client)
        assert caught.value.response.headers["retry-after"] == "3"
    assert ask(client).choices


def test_official_client_retries_over_a_failure(server: MockEngineServer) -> None:
    """A server error that passes is not noticed."""
    server.fail_next(500, headers={"retry-after-ms": "1"})
    with sdk(server, retries=1) as client:
        assert ask(client).choices
    assert len(server.requests) == 2


def test_stream_that_dies_is_cut_in_the_middle() -> None:
    """After so many chunks, without an end."""
    with MockEngineServer(reply="one two three", dies_after_chunks=2) as server:
        with sdk(server) as client:
            chunks = iter(ask(client, stream=True))
            seen = [next(chunks).choices[0].delta.content for _ in range(3)]
            with pytest.raises(openai.APIConnectionError):
                next(chunks)
            assert seen == ["", "one", " two"]
            assert ask(client).choices[0].message.content == "one two three"


def test_close_cuts_what_is_open_and_frees_the_port() -> None:
    """At once, also a stream whose next chunk is an hour away; twice is as good."""
    server = MockEngineServer(chunk_delay_s=3600)
    server.start()
    with sdk(server) as client:
        chunks = iter(ask(client, stream=True))
        next(chunks)
        server.close()
        for call in (lambda: next(chunks), lambda: ask(client)):
            with pytest.raises(openai.APIConnectionError):
                call()
    server.close()
    with closing(socket.create_server(("127.0.0.1", server.port))):
        with pytest.raises(OSError, match="in use"):
            server.start()


def test_closed_server_listens_on_its_port_again() -> None:
    """As an engine that is restarted does; what it was asked before is kept."""
    server = MockEngineServer()
    for _ in range(2):
        with server:
            server.start()
            assert httpx.get(f"{server.base_url}/health", **PLAIN).status_code == 200
    assert len(server.requests) == 2


def test_server_that_was_never_started_is_closed_already() -> None:
    """And knows the port it was given."""
    server = MockEngineServer(port=8080)
    server.close()
    assert server.base_url == "http://127.0.0.1:8080"


@pytest.mark.parametrize(
    ("head", "status", "kind"),
    [
        (b"POST /v1/completions HTTP/1.1\r\ncontent-length: 99999999\r\n\r\n", 413, "larger"),
        (b"POST /v1/completions HTTP/1.1\r\ncontent-length: many\r\n\r\n", 400, "content-length"),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 411, "content-length"),
        (b"BREW / HTTP/1.1\r\n\r\n", 501, "BREW"),
        (b"GET / HTTP/x\r\n\r\n", 400, "version"),
    ],
)
def test_request_that_cannot_be_read_is_refused_and_the_connection_closed(
    server: MockEngineServer, head: bytes, status: int, kind: str
) -> None:
    """In OpenAI's shape all the same."""
    answer = raw(server, head)
    assert b'{"error": {"message": ' in answer and kind.encode() in answer
    assert answer.startswith(b"HTTP/1.1 %d " % status) or answer.startswith(b"{")


def test_client_that_leaves_disturbs_nobody(server: MockEngineServer) -> None:
    """In the middle of its request, or before its answer."""
    for begun in (b"POST / HTTP/1.1\r\ncontent-length: 10\r\n\r\nabc", b"GET /v1/mod", b""):
        with closing(socket.create_connection(("127.0.0.1", server.port))) as connection:
            connection.sendall(begun)
    assert httpx.get(f"{server.base_url}/health", **PLAIN).status_code == 200


def test_many_clients_are_served_at_once(server: MockEngineServer) -> None:
    """Each in its own words, and all are recorded."""
    said: dict[int, str] = {}

    def chat(number: int) -> None:
        with sdk(server) as client:
            answer = ask(client, messages=[{"role": "user", "content": str(number)}])
            said[number] = answer.choices[0].message.content

    together(chat, 8)
    assert said == {number: f"You said: {number}" for number in range(8)}
    assert len(server.requests) == 8


def together(call: Callable[[int], None], count: int) -> None:
    """Call ``call`` in so many threads."""
    threads = [threading.Thread(target=call, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    ("moment", "error"),
    [
        (0, httpx.TransportError),
        (1, httpx.RemoteProtocolError),
        (2, httpx.RemoteProtocolError),
    ],
)
def test_engine_that_is_gone_cuts_the_connection(moment: int, error: type[Exception]) -> None:
    """When it is made, at its request, or in the middle of the answer."""
    conditions = iter([EngineCondition.READY] * moment)

    def condition() -> EngineCondition:
        return next(conditions, EngineCondition.GONE)

    body = {"messages": HELLO, "stream": True}
    with MockEngineServer(condition=condition) as server, pytest.raises(error):
        httpx.post(f"{server.base_url}/v1/chat/completions", json=body, **PLAIN)
