"""HTTP/1.1 as bytes, read back by the parser that clients trust."""

from __future__ import annotations

from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglib.gateway.relay.wire import (
    CONTINUE,
    LAST_CHUNK,
    REQUEST_HEADERS_KEPT_HERE,
    RESPONSE_HEADERS_KEPT_THERE,
    STATUS_LINES,
    chunk,
    travelling,
    whole_answer,
)

tokens = st.from_regex(rb"[a-z][a-z0-9-]{0,15}", fullmatch=True)
header_values = st.from_regex(rb"[!-~]([ -~]{0,20}[!-~])?", fullmatch=True)
HOP_BY_HOP = {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"}


class Parsed:
    """An answer as a client's parser reads it."""

    def __init__(self, data: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.complete = False
        self.parser: Any = httptools.HttpResponseParser(self)
        self.parser.feed_data(data)
        self.status = self.parser.get_status_code()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self.headers.append((name, value))

    def on_body(self, data: bytes) -> None:
        """Keep a part of the body."""
        self.body += data

    def on_message_complete(self) -> None:
        """Note the end."""
        self.complete = True


@given(st.lists(st.binary(min_size=1, max_size=5000), max_size=5))
def test_chunks_are_read_back_as_they_were(pieces: list[bytes]) -> None:
    """And the last one ends the body."""
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    parsed = Parsed(head + b"".join(chunk(piece) for piece in pieces) + LAST_CHUNK)
    assert parsed.body == b"".join(pieces)
    assert parsed.complete


@given(
    st.sampled_from([200, 404, 413, 429, 500, 503]),
    st.binary(max_size=200),
    st.booleans(),
    st.dictionaries(st.sampled_from(["content-type", "retry-after", "x-a"]), st.just("v")),
)
def test_whole_answer_is_read_back_as_it_was(
    status: int, body: bytes, close: bool, headers: dict[str, str]
) -> None:
    """Status, headers, body, and whether the connection goes on."""
    parsed = Parsed(whole_answer(status, body, headers=headers.items(), close=close))
    assert (parsed.status, parsed.body, parsed.complete) == (status, body, True)
    assert ((b"connection", b"close") in parsed.headers) is close
    for name, value in headers.items():
        assert (name.encode(), value.encode()) in parsed.headers


def test_answer_to_a_head_has_the_length_and_no_body() -> None:
    """What a GET would have brought."""
    answer = whole_answer(200, b"12345", close=False, head_only=True)
    assert answer.endswith(b"content-length: 5\r\n\r\n")


@given(
    st.lists(st.tuples(tokens, header_values), max_size=6),
    st.lists(tokens, max_size=3),
    st.sampled_from([REQUEST_HEADERS_KEPT_HERE, RESPONSE_HEADERS_KEPT_THERE]),
)
def test_header_travels_unless_it_is_kept_or_declared_hop_by_hop(
    headers: list[tuple[bytes, bytes]], declared: list[bytes], kept: frozenset[bytes]
) -> None:
    """In order, each as it came; a Connection header names more of them."""
    # Other Connection headers would declare more; what they name is drawn in ``declared``.
    headers = [pair for pair in headers if pair[0] != b"connection"]
    listed = [*headers, (b"connection", b" , ".join(name.upper() for name in declared))]
    expected = [
        b"%b: %b" % (name, value)
        for name, value in headers
        if name not in kept and name not in declared
    ]
    assert travelling(listed, kept).split(b"\r\n")[:-1] == expected


@pytest.mark.parametrize("kept", [REQUEST_HEADERS_KEPT_HERE, RESPONSE_HEADERS_KEPT_THERE])
def test_framing_of_one_side_never_reaches_the_other(kept: frozenset[bytes]) -> None:
    """Each connection has its own."""
    assert kept >= HOP_BY_HOP


def test_secret_of_the_client_stays_here() -> None:
    """The engine gets neither keys nor cookies, nor where a page came from."""
    secrets = {b"authorization", b"api-key", b"x-api-key", b"cookie", b"origin", b"referer"}
    assert secrets <= REQUEST_HEADERS_KEPT_HERE


def test_every_status_has_its_line() -> None:
    """Also those without a name."""
    assert STATUS_LINES[404] == b"HTTP/1.1 404 Not Found\r\n"
    assert STATUS_LINES[299] == b"HTTP/1.1 299 \r\n"
    assert set(STATUS_LINES) == set(range(100, 1000))
    assert STATUS_LINES[100] + b"\r\n" == CONTINUE
