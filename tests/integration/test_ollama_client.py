"""The official ``ollama`` package against ``gglib serve`` and a real engine, unchanged."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import ollama
import pytest
from support.commands import Home, Served
from support.extras import require_embedded_engine

from gglib.services.demo.tiny_gguf import tiny_gguf

pytestmark = pytest.mark.engine

HELLO: list[Any] = [{"role": "user", "content": "hi"}]
SHORT = {"num_predict": 6, "temperature": 0, "seed": 1}
DEADLINE_S = 20.0


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway before the embedded engine and its tiny model."""
    require_embedded_engine()
    home = Home.make(tmp_path_factory.mktemp("real"))
    home.configure(
        '[models.tiny]\npath = "tiny.gguf"\nengine = "embedded"\naliases = ["small:1b"]\n'
        'context_size = 512\nthreads = 1\nembeddings = true\npooling = "mean"\n'
    )
    (home.path / "tiny.gguf").write_bytes(tiny_gguf())
    with home.serve() as served:
        yield served


@pytest.fixture(scope="module")
def client(real: Served) -> Iterator[ollama.Client]:
    """A client of it, which knows nothing but another host."""
    with ollama.Client(host=real.address, trust_env=False) as client:
        yield client


def names_in_memory(client: ollama.Client) -> list[str | None]:
    """Return what ``ollama ps`` lists."""
    return [each.model for each in client.ps().models]


def test_models_are_listed_and_shown(client: ollama.Client) -> None:
    """With what their files say."""
    (listed,) = client.list().models
    assert listed.model == "tiny"
    assert listed.size == len(tiny_gguf())
    assert listed.details is not None
    assert (listed.details.family, listed.details.format) == ("llama", "gguf")
    for name in ("tiny", "tiny:latest", "small:1b"):
        shown = client.show(name)
        assert shown.modelinfo is not None
        assert shown.modelinfo["general.architecture"] == "llama"
        assert shown.capabilities == ["completion", "embedding"]
        assert shown.modified_at == listed.modified_at


@pytest.mark.parametrize("name", ["tiny", "tiny:latest", "small:1b"])
def test_chat_is_answered_under_every_name(client: ollama.Client, name: str) -> None:
    """With counts and times."""
    answer = client.chat(name, HELLO, options=SHORT)
    assert answer.model == name
    assert len(answer.message.content or "") == 6
    assert (answer.done, answer.done_reason, answer.eval_count) == (True, "length", 6)
    assert (answer.prompt_eval_count or 0) > 0
    assert (answer.total_duration or 0) >= (answer.eval_duration or 0) > 0


def test_streamed_chat_says_what_the_whole_answer_says(client: ollama.Client) -> None:
    """In pieces that add up, and a last one that counts."""
    whole = client.chat("tiny", HELLO, options=SHORT)
    *parts, last = client.chat("tiny", HELLO, options=SHORT, stream=True)
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert len(parts) > 1
    assert not any(part.done for part in parts)
    assert (last.done, last.done_reason, last.eval_count) == (True, "length", 6)


@pytest.mark.parametrize("raw", [False, True])
def test_prompt_is_completed_whole_and_in_pieces(client: ollama.Client, raw: bool) -> None:
    """With the model's template and without."""
    whole = client.generate("tiny", "hello", options=SHORT, raw=raw)
    *parts, last = client.generate("tiny", "hello", options=SHORT, raw=raw, stream=True)
    assert len(whole.response or "") == 6
    assert "".join(part.response or "" for part in parts) == whole.response
    assert (last.done_reason, last.eval_count) == ("length", 6)
    counted = whole.prompt_eval_count or 0
    assert (counted < 10) is raw, "the template's words are counted"


def test_stop_and_system_reach_the_engine(client: ollama.Client) -> None:
    """An answer ends where it is told to."""
    answer = client.generate("tiny", "hello", options=SHORT)
    assert answer.response
    first = answer.response[0]
    ended = client.generate("tiny", "hello", options={**SHORT, "stop": [first]})
    assert (ended.response, ended.done_reason) == ("", "stop")
    told = client.generate("tiny", "hello", system="be brief", options=SHORT)
    assert (told.prompt_eval_count or 0) > (answer.prompt_eval_count or 0)


def test_probabilities_are_told(client: ollama.Client) -> None:
    """One for each token."""
    for raw in (False, True):
        answer = client.generate(
            "tiny", "hello", options=SHORT, raw=raw, logprobs=True, top_logprobs=2
        )
        assert answer.logprobs is not None
        assert len(answer.logprobs) == 6
        assert len(answer.logprobs[0].top_logprobs or ()) == 2


def test_texts_have_vectors(client: ollama.Client) -> None:
    """As many as texts, of length 1, the same however they are asked for."""
    both = client.embed("tiny", ["a", "b"])
    one = client.embed("tiny", "a", dimensions=8)
    old = client.embeddings("tiny", "a")
    assert [len(vector) for vector in both.embeddings] == [64, 64]
    assert sum(number**2 for number in one.embeddings[0]) == pytest.approx(1)
    assert len(one.embeddings[0]) == 8
    assert list(old.embedding) == pytest.approx(list(both.embeddings[0]), abs=1e-4)


def test_model_stays_as_long_as_it_is_asked_to(client: ollama.Client) -> None:
    """And goes when it is asked to: ``ollama stop`` does just this."""
    client.chat("tiny", HELLO, options=SHORT, keep_alive="30m")
    (row,) = client.ps().models
    assert row.expires_at is not None
    left = row.expires_at - datetime.now(UTC)
    assert timedelta(minutes=29) < left <= timedelta(minutes=30)
    assert row.context_length == 512
    assert client.generate("tiny", keep_alive=-1).done_reason == "load"
    (row,) = client.ps().models
    assert row.expires_at is not None
    assert row.expires_at.year == 2200
    assert client.generate("tiny", keep_alive=0).done_reason == "unload"
    deadline = time.monotonic() + DEADLINE_S
    while names_in_memory(client):
        assert time.monotonic() < deadline
    loaded = client.chat("tiny", [])
    assert (loaded.done_reason, names_in_memory(client)) == ("load", ["tiny"])


def test_errors_are_the_clients_own(client: ollama.Client) -> None:
    """Ours, and what the engine says; before an answer, streamed or not."""
    for stream in (False, True):
        with pytest.raises(ollama.ResponseError) as unknown:
            list(client.chat("nobody", HELLO, stream=stream))  # type: ignore[call-overload]
        assert (unknown.value.error, unknown.value.status_code) == ("model 'nobody' not found", 404)
        prompt = "x" * 4000
        with pytest.raises(ollama.ResponseError, match="exceeds the available context") as long:
            list(client.generate("tiny", prompt, stream=stream))  # type: ignore[call-overload]
        assert long.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="image input is not supported"):
        client.generate("tiny", "what?", images=["AAAA"])
    with pytest.raises(ollama.ResponseError, match="Infill is not supported") as infill:
        client.generate("tiny", "a", suffix="b")
    assert infill.value.status_code == 501
    with pytest.raises(ollama.ResponseError, match="gglib model"):
        client.pull("tiny")


def test_many_at_once_are_all_answered(real: Served) -> None:
    """By the asynchronous client; one leaves early, and nobody waits for it."""

    async def work() -> None:
        counts: dict[int, int | None] = {}
        async with ollama.AsyncClient(host=real.address, trust_env=False) as client:

            async def ask(number: int) -> None:
                options = {**SHORT, "num_predict": number}
                counts[number] = (await client.chat("tiny", HELLO, options=options)).eval_count

            async with anyio.create_task_group() as tasks:
                for number in range(1, 9):
                    tasks.start_soon(ask, number)
        assert counts == {number: number for number in range(1, 9)}

    anyio.run(work)


def test_answer_that_nobody_reads_any_more_is_not_produced(
    real: Served, client: ollama.Client
) -> None:
    """The engine is free at once."""
    stream = client.generate("tiny", "hello", options={"num_predict": -1}, raw=True, stream=True)
    next(iter(stream))
    stream.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + DEADLINE_S
    with real.client() as http:
        while any(each["in_flight"] for each in http.get("/running").json()["running"]):
            assert time.monotonic() < deadline


def test_one_line_of_curl_is_enough(real: Served) -> None:
    """No header says that it is JSON, and streaming is the default."""
    with real.client() as http:
        body = json.dumps({"model": "tiny", "prompt": "a", "options": SHORT})
        answer = http.post("/api/generate", content=body)
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert json.loads(answer.text.splitlines()[-1])["done"]
