"""Heads: understood once, and known again by their bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglib.errors import InvalidRequest
from gglib.gateway.relay.heads import AnswerHead, HeadBytes, RequestHead

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\ncontent-LENGTH: %b\r\nX-Y: z\r\n\r\n"


def message(body: bytes, length: bytes | None = None) -> bytes:
    """Return a message; its length may be told wrong."""
    return HEAD % (b"%d" % len(body) if length is None else length) + body


KNOWN = HeadBytes.of(message(b"{}"))


@given(st.binary(max_size=300))
def test_message_that_differs_in_its_body_alone_is_known(body: bytes) -> None:
    """Whatever its length, the body is found."""
    assert KNOWN is not None
    data = message(body)
    at = KNOWN.body_at(data)
    assert at == len(data) - len(body)
    assert data[at:] == body


@given(st.binary(max_size=40), st.binary(max_size=40), st.integers(0, 400))
def test_anything_else_is_not_known(body: bytes, extra: bytes, cut: int) -> None:
    """Nothing but one whole message with these very bytes gets past the parser."""
    assert KNOWN is not None
    whole = message(body)
    assert (KNOWN.body_at(whole + extra) >= 0) == (extra == b"")
    assert (KNOWN.body_at(whole[:cut]) >= 0) == (cut >= len(whole))
    assert KNOWN.body_at(b"\r\n" + whole) == -1


@pytest.mark.parametrize(
    "length", [b"", b"+2", b"-2", b" 2", b"2 ", b"0x2", b"2,2", b"2\r\nA: b", b"1_0", b"9" * 30]
)
def test_length_that_is_not_plain_digits_is_for_the_parser(length: bytes) -> None:
    """Only digits were let through; everything else is judged again."""
    assert KNOWN is not None
    assert KNOWN.body_at(message(b"{}", length)) == -1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        message(b"{}") + message(b"{}"),
        message(b"{}")[:-1],
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + message(b"{}"),
    ],
)
def test_what_is_not_one_whole_message_is_not_learned(data: bytes) -> None:
    """There is nothing to know it by."""
    assert HeadBytes.of(data) is None


def test_head_is_the_same_again_but_for_its_length() -> None:
    """The length is taken over; any other difference makes it another head."""
    head = RequestHead([(b"Host", b"a"), (b"Content-Length", b"5"), (b"A", b"b")])
    assert head.is_again([(b"Host", b"a"), (b"Content-Length", b"77"), (b"A", b"b")])
    assert head.length == b"77"
    assert dict(head.headers_now())[b"content-length"] == b"77"
    other = [(b"Host", b"b"), (b"Content-Length", b"5"), (b"A", b"b")]
    assert not head.is_again(other)
    assert other == [(b"Host", b"b"), (b"Content-Length", b"5"), (b"A", b"b")]
    assert not head.is_again([])
    assert not RequestHead([(b"Host", b"a")]).is_again([(b"Host", b"a"), (b"X", b"y")])


@pytest.mark.parametrize("name", [b"Host", b"Authorization", b"Origin", b"X-Request-Id"])
def test_header_that_decides_is_there_once(name: bytes) -> None:
    """A second one would leave open which of them decides."""
    with pytest.raises(InvalidRequest, match="two"):
        RequestHead([(name, b"a"), (name.lower(), b"b")])


def test_answer_head_knows_its_framing_and_kind() -> None:
    """What the relay asks of it."""
    head = AnswerHead(
        [(b"Content-Type", b"text/event-stream; charset=utf-8"), (b"Transfer-Encoding", b"chunked")]
    )
    assert head.is_event_stream
    assert head.is_encoded
    assert head.travelling == b"content-type: text/event-stream; charset=utf-8\r\n"
