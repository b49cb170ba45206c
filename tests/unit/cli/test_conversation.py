"""Conversations: what is sent, what is kept, and what goes wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from gglib.cli.conversation import Conversation, Piece
from gglib.domain.inference import InferenceConfig
from gglib.errors import GatewayUnreachable, ServerError

DONE = b"data: [DONE]\n\n"


def event(**delta: Any) -> bytes:
    """Return one event of a streamed chat."""
    return b"data: " + json.dumps({"choices": [{"delta": delta}]}).encode() + b"\n\n"


def talking(*answers: bytes | httpx.Response | Exception) -> tuple[Conversation, list[Any]]:
    """Return a conversation with a model that answers so, in turn, and what it is asked."""
    asked: list[Any] = []
    coming: Iterator[bytes | httpx.Response | Exception] = iter(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        found = next(coming)
        if isinstance(found, Exception):
            raise found
        return found if isinstance(found, httpx.Response) else httpx.Response(200, content=found)

    client = httpx.Client(base_url="http://there", transport=httpx.MockTransport(answer))
    return Conversation(client, "m"), asked


def test_answer_comes_in_pieces_and_is_remembered() -> None:
    """Comments and empty deltas are nothing; reasoning is told apart, and not remembered."""
    talk, asked = talking(
        b": waiting\n\n" + event(reasoning_content="hm") + event(content="Hel") + event(role="x")
        + event(content="lo") + b'data: {"choices":[],"timings":{"predicted_n":2}}\n\n' + DONE,
        event(content="again") + DONE,
    )  # fmt: skip
    talk.system = "Be kind."
    talk.inference = InferenceConfig(temperature=0.5)
    assert list(talk.ask("hi")) == [Piece("hm", is_reasoning=True), Piece("Hel"), Piece("lo")]
    assert talk.timings == {"predicted_n": 2}
    assert list(talk.ask("more")) == [Piece("again")]
    said = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "more"},
    ]
    assert asked[1] == {"model": "m", "messages": said, "stream": True, "temperature": 0.5}
    assert talk.undo() == "more"
    assert talk.undo() == "hi"
    assert talk.undo() is None


def test_stopped_answer_is_remembered_as_far_as_it_was_read() -> None:
    """So that the next question can refer to it."""
    talk, _ = talking(event(content="one") + event(content="two") + DONE)
    pieces = talk.ask("count")
    assert next(pieces) == Piece("one")
    pieces.close()  # type: ignore[attr-defined]
    assert talk.messages[-1] == {"role": "assistant", "content": "one"}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (httpx.Response(404, json={"error": {"message": "no such model"}}), "no such model"),
        (httpx.Response(502, text="<html>"), "the server answered 502"),
        (event(content="a") + b'data: {"error":{"message":"it died"}}\n\n', "it died"),
        (event(content="a"), "ended before it was complete"),
    ],
)
def test_failed_question_is_as_if_it_was_never_asked(
    answer: bytes | httpx.Response, why: str
) -> None:
    """The next one finds the conversation as it was."""
    talk, asked = talking(answer, event(content="fine") + DONE)
    with pytest.raises(ServerError, match=why):
        list(talk.ask("hi"))
    list(talk.ask("again"))
    assert [each["content"] for each in asked[-1]["messages"]] == ["again"]


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), httpx.ReadError("")])
def test_nobody_there_is_said(error: Exception) -> None:
    """With the address."""
    talk, _ = talking(error)
    with pytest.raises(GatewayUnreachable, match="http://there"):
        list(talk.ask("hi"))


def test_end_of_a_conversation_closes_its_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is the conversation's."""
    closed: list[Callable[[], None]] = []
    talk, _ = talking()
    monkeypatch.setattr(talk._client, "close", lambda: closed.append(test_nobody_there_is_said))
    with talk:
        assert not closed
    assert closed
