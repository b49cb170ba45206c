"""The official ``openai`` package against ``gglib serve``: what its users do, and meet."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from support.commands import Home, Served, stub_config
from support.extras import require_embedded_engine

from gglib.services.demo.tiny_gguf import tiny_gguf

KEY = "sk-the-right-one"
HELLO: list[Any] = [{"role": "user", "content": "hi"}]
#: Far beyond what is ever needed; a test that gets there has failed.
DEADLINE_S = 20.0


def sdk(served: Served, key: str = "any") -> OpenAI:
    """Return a client of the gateway: through no proxy, and nothing is hidden by a retry."""
    client = openai.DefaultHttpxClient(trust_env=False)
    address = f"{served.address}/v1"
    return OpenAI(base_url=address, api_key=key, http_client=client, max_retries=0)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway before the embedded engine and its tiny model."""
    require_embedded_engine()
    home = Home.make(tmp_path_factory.mktemp("real"))
    home.configure(
        '[models.tiny]\npath = "tiny.gguf"\naliases = ["gpt-tiny"]\nengine = "embedded"\n'
        'context_size = 512\nthreads = 1\nembeddings = true\npooling = "mean"\n'
    )
    (home.path / "tiny.gguf").write_bytes(tiny_gguf())
    with home.serve() as served:
        yield served


@pytest.fixture(scope="module")
def client(real: Served) -> Iterator[OpenAI]:
    """A client of it."""
    with sdk(real) as client:
        yield client


@pytest.fixture(scope="module")
def guarded_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A place whose gateway wants a key, with a stub whose streams never end."""
    home = Home.make(tmp_path_factory.mktemp("guarded"))
    gateway = f'[gateway]\napi_keys = ["{KEY}"]\n'
    home.configure(stub_config("endless", extra=gateway, chunks=10**9), "endless")
    return home


@pytest.fixture(scope="module")
def guarded(guarded_home: Home) -> Iterator[Served]:
    """Its gateway, which logs all it can."""
    with guarded_home.serve("--debug") as served:
        yield served


@pytest.fixture(scope="module")
def keyed(guarded: Served) -> Iterator[OpenAI]:
    """A client with the right key."""
    with sdk(guarded, KEY) as client:
        yield client


def resident(client: OpenAI) -> dict[str, Any]:
    """Return what the gateway says of its one resident."""
    root = str(client.base_url).removesuffix("/v1/")
    answer: dict[str, Any] = client.get(f"{root}/running", cast_to=object)  # type: ignore[assignment]
    (found,) = answer["running"]
    return dict(found)


def when_free(client: OpenAI) -> bool:
    """Return whether the resident gets rid of all its work, asking until it does."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if resident(client)["in_flight"] == 0:
            return True
    return False


@pytest.mark.engine
def test_models_are_listed_and_retrieved(client: OpenAI) -> None:
    """An alias leads to the model's own object."""
    (listed,) = client.models.list()
    assert (listed.id, listed.object, listed.owned_by) == ("tiny", "model", "gglib")
    assert client.models.retrieve("tiny").id == "tiny"
    assert client.models.retrieve("gpt-tiny").id == "tiny"


@pytest.mark.engine
@pytest.mark.parametrize("name", ["tiny", "gpt-tiny"])
def test_chat_is_answered_under_every_name(client: OpenAI, name: str) -> None:
    """The answer names the model, says why it ended and what it cost."""
    answer = client.chat.completions.create(model=name, messages=HELLO, max_tokens=6)
    assert answer.model == "tiny"
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 6


@pytest.mark.engine
def test_streamed_chat_says_what_the_whole_answer_says(client: OpenAI) -> None:
    """Pieces that add up, a reason at the end, and the usage where it is asked for."""
    ask: dict[str, Any] = {
        "model": "tiny",
        "messages": HELLO,
        "max_tokens": 12,
        "seed": 1,
        "temperature": 0,
    }
    whole = client.chat.completions.create(**ask)
    chunks = list(
        client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert len([piece for piece in pieces if piece]) > 1
    assert reasons[-1] == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12


@pytest.mark.engine
def test_legacy_completion_is_answered(client: OpenAI) -> None:
    """With and without a stream."""
    answer = client.completions.create(model="tiny", prompt="once upon", max_tokens=5)
    assert (answer.object, len(answer.choices[0].text) > 0) == ("text_completion", True)
    stream = client.completions.create(model="tiny", prompt="once", max_tokens=5, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream)


@pytest.mark.engine
def test_embeddings_are_the_same_in_either_encoding(client: OpenAI) -> None:
    """The package asks for base64 unless it is told otherwise, and gives numbers back."""
    texts = ["one", "two"]
    encoded = client.embeddings.create(model="tiny", input=texts).data
    plain = client.embeddings.create(model="tiny", input=texts, encoding_format="float").data
    assert [item.index for item in encoded] == [0, 1]
    assert [len(item.embedding) for item in encoded] == [64, 64]
    assert encoded[0].embedding != encoded[1].embedding
    for one, other in zip(encoded, plain, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-5)


@pytest.mark.engine
def test_unknown_model_is_not_found_and_close_names_are_told(client: OpenAI) -> None:
    """Of a relayed request, and of one that the gateway answers itself."""
    for ask in (
        lambda: client.chat.completions.create(model="tinny", messages=HELLO),
        lambda: client.models.retrieve("tinny"),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            ask()
        assert caught.value.code == "model_not_found"
        assert caught.value.param == "model"
        assert "did you mean 'tiny'" in caught.value.message


@pytest.mark.engine
def test_bad_request_names_the_parameter(client: OpenAI) -> None:
    """What the gateway refuses itself, and what only the engine can know to be wrong."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="", messages=HELLO)
    assert (caught.value.param, caught.value.type) == ("model", "invalid_request_error")
    with pytest.raises(openai.BadRequestError, match="messages"):
        client.post("/chat/completions", body={"model": "tiny"}, cast_to=object)


@pytest.mark.engine
def test_request_id_comes_back(client: OpenAI) -> None:
    """A name of the client's, or one that is made for it."""
    raw = client.chat.completions.with_raw_response.create(
        model="tiny", messages=HELLO, max_tokens=1, extra_headers={"x-request-id": "mine-1"}
    )
    assert raw.headers["x-request-id"] == "mine-1"
    answer = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=1)
    assert (answer._request_id or "").startswith("req_")
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nobody", messages=HELLO)
    assert (caught.value.request_id or "").startswith("req_")


@pytest.mark.engine
def test_concurrent_requests_are_all_answered(real: Served) -> None:
    """More at once than the engine has slots; each gets its own number of tokens."""

    async def work() -> None:
        counts: dict[int, int] = {}
        transport = openai.DefaultAsyncHttpxClient(trust_env=False)
        async with AsyncOpenAI(
            base_url=f"{real.address}/v1", api_key="any", max_retries=0, http_client=transport
        ) as client:

            async def ask(number: int) -> None:
                answer = await client.chat.completions.create(
                    model="tiny", messages=HELLO, max_tokens=number
                )
                assert answer.usage is not None
                counts[number] = answer.usage.completion_tokens

            async with anyio.create_task_group() as tasks:
                for number in range(1, 9):
                    tasks.start_soon(ask, number)
        assert counts == {number: number for number in range(1, 9)}

    anyio.run(work)


def test_wrong_key_is_an_authentication_error(guarded: Served) -> None:
    """Of every route, and nothing is loaded for a stranger."""
    with sdk(guarded, "sk-wrong") as stranger:
        for ask in (
            lambda: stranger.models.list(),
            lambda: stranger.chat.completions.create(model="endless", messages=HELLO),
        ):
            with pytest.raises(openai.AuthenticationError) as caught:
                ask()
            assert caught.value.code == "invalid_api_key"
            assert "sk-" not in caught.value.message
            assert caught.value.response.headers["x-request-id"]


def test_right_key_is_let_in(keyed: OpenAI) -> None:
    """It lists, and it chats."""
    assert [model.id for model in keyed.models.list()] == ["endless"]
    answer = keyed.chat.completions.create(model="endless", messages=HELLO)
    assert answer.choices[0].message.content == "I am endless"


def test_client_that_closes_an_endless_stream_frees_the_engine(keyed: OpenAI) -> None:
    """What nobody reads is not produced."""
    with keyed.chat.completions.create(model="endless", messages=HELLO, stream=True) as stream:
        chunks = iter(stream)
        assert [next(chunks).choices[0].delta.content for _ in range(3)] == ["0 ", "1 ", "2 "]
        assert resident(keyed)["in_flight"] == 1
    assert when_free(keyed)


def kill(client: OpenAI, _: Home | None = None) -> None:
    """Kill the engine."""
    os.kill(resident(client)["pid"], signal.SIGKILL)


def force(_: OpenAI, home: Home) -> None:
    """Have the administrator stop the engine at once."""
    done = home.run("stop", "endless", "--force")
    assert (done.returncode, done.stdout) == (0, "stopped endless\n")


@pytest.mark.parametrize("end", [kill, force])
def test_engine_ended_in_a_stream_is_an_error_that_says_so(
    keyed: OpenAI, guarded_home: Home, end: Callable[[OpenAI, Home], None]
) -> None:
    """A cut answer does not pass for a whole one; the next request gets a new engine."""
    stream = keyed.chat.completions.create(
        model="endless", messages=HELLO, stream=True, extra_body={"pause_after": 2}
    )
    chunks = iter(stream)
    assert [next(chunks).choices[0].delta.content for _ in range(2)] == ["0 ", "1 "]
    end(keyed, guarded_home)
    with pytest.raises(openai.APIError) as caught:
        next(chunks)
    assert "died" in caught.value.message
    assert caught.value.code == "engine_died"
    assert keyed.chat.completions.create(model="endless", messages=HELLO).choices


def test_engine_killed_in_the_middle_of_an_event_is_an_error_too(keyed: OpenAI) -> None:
    """Between events it is told, in the middle of one the transfer breaks: never a clean end."""
    stream = keyed.chat.completions.create(model="endless", messages=HELLO, stream=True)
    chunks = iter(stream)
    next(chunks)
    kill(keyed)
    with pytest.raises((openai.APIError, httpx.HTTPError)):
        for _ in chunks:
            pass


def test_no_key_is_in_the_log(guarded: Served, keyed: OpenAI, guarded_home: Home) -> None:
    """Neither the clients' keys nor the administrator's token, whatever is logged."""
    keyed.chat.completions.create(model="endless", messages=HELLO)
    with sdk(guarded, "sk-guessed") as stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()
    token = json.loads((guarded_home.path / "gateway.json").read_bytes())["admin_token"]
    log = (guarded_home.path.parent / "serve.log").read_text()
    assert "server.ready" in log
    for secret in (KEY, token, "sk-guessed"):
        assert secret not in log
