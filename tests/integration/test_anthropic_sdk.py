"""The official ``anthropic`` package against ``gglib serve`` and the embedded engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic
from support.commands import Home, Served
from support.extras import require_embedded_engine

from gglib.services.demo.tiny_gguf import tiny_gguf

pytestmark = pytest.mark.engine

KEY = "sk-the-right-one"
HELLO: list[Any] = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway that wants a key, before a tiny model."""
    require_embedded_engine()
    home = Home.make(tmp_path_factory.mktemp("anthropic"))
    home.configure(
        f'[gateway]\napi_keys = ["{KEY}"]\n'
        '[models.tiny]\npath = "tiny.gguf"\nengine = "embedded"\n'
        "context_size = 512\nthreads = 1\n"
    )
    (home.path / "tiny.gguf").write_bytes(tiny_gguf())
    with home.serve() as served:
        yield served


def sdk(served: Served, key: str = KEY) -> Anthropic:
    """Return a client of the gateway: through no proxy, and nothing is hidden by a retry."""
    client = anthropic.DefaultHttpxClient(trust_env=False)
    return Anthropic(base_url=served.address, api_key=key, http_client=client, max_retries=0)


def test_message_is_answered(served: Served) -> None:
    """In Anthropic's form, by the engine itself."""
    with sdk(served) as client:
        answer = client.messages.create(model="tiny", max_tokens=8, messages=HELLO)
    assert answer.role == "assistant"
    assert answer.usage.output_tokens == 8
    assert answer.stop_reason == "max_tokens"


def test_message_is_streamed(served: Served) -> None:
    """Its events make the whole message."""
    with (
        sdk(served) as client,
        client.messages.stream(model="tiny", max_tokens=8, messages=HELLO) as stream,
    ):
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert final.content[0].text == text  # type: ignore[union-attr]
    assert final.usage.output_tokens == 8


def test_tokens_are_counted(served: Served) -> None:
    """Without answering."""
    with sdk(served) as client:
        assert client.messages.count_tokens(model="tiny", messages=HELLO).input_tokens > 1


def test_errors_are_those_that_the_package_knows(served: Served) -> None:
    """By their status."""
    with sdk(served) as client, pytest.raises(anthropic.NotFoundError, match="nobody"):
        client.messages.create(model="nobody", max_tokens=8, messages=HELLO)
    with sdk(served, "wrong") as client, pytest.raises(anthropic.AuthenticationError):
        client.messages.create(model="tiny", max_tokens=8, messages=HELLO)
