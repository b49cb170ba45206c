"""The shortest way for a stream's events: it changes nothing of what arrives."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglib.gateway.meter import Meter
from gglib.gateway.relay.heads import AnswerHead
from gglib.gateway.relay.splice import Splice
from gglib.gateway.relay.upstream import UpstreamConnection

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b"data: 1\n\n"


def chunk(data: bytes, size: bytes | None = None) -> bytes:
    """Return a chunk; its size may be told in another way."""
    return (b"%x" % len(data) if size is None else size) + b"\r\n" + data + b"\r\n"


class Sink:
    """Takes an answer; what is spliced is noted without its framing."""

    def __init__(self) -> None:
        self.body = b""
        self.spliced_events = 0
        self.ended = False
        self.failed = ""
        self._splice = Splice(self._write, Meter())

    def _write(self, data: bytes) -> None:
        size, _, rest = data.partition(b"\r\n")
        assert rest.endswith(b"\r\n")
        assert int(size, 16) == len(rest) - 2
        self.body += rest[:-2]
        self.spliced_events += 1

    def splice(self) -> Splice:
        return self._splice

    def answer_started(self, status: int, head: AnswerHead) -> None:
        assert status == 200

    def answer_body(self, data: bytes) -> None:
        self.body += data

    def answer_ended(self) -> None:
        self.ended = True

    def flush(self) -> None:
        """Nothing is held back."""

    def upstream_failed(self, reason: str, *, clean_close: bool) -> None:
        self.failed = reason


class Transport:
    """Takes everything."""

    def write(self, data: bytes) -> None:
        """See ``asyncio.Transport``."""

    def abort(self) -> None:
        """See ``asyncio.Transport``."""

    def close(self) -> None:
        """See ``asyncio.Transport``."""


class Pool:
    """Keeps no connection."""

    def put_back(self, connection: UpstreamConnection) -> None:
        """See ``UpstreamPool``."""

    def forget(self, connection: UpstreamConnection) -> None:
        """See ``UpstreamPool``."""


def answered(*reads: bytes) -> Sink:
    """Return what a sink has got of an answer that came in these reads."""
    sink, pool = Sink(), Pool()
    connection = UpstreamConnection(pool)  # type: ignore[arg-type]
    connection.connection_made(Transport())  # type: ignore[arg-type]
    connection.send(sink, b"", b"")
    for data in reads:
        connection.data_received(data)
        if connection.closed:
            break
    return sink


PIECES = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=30).map(lambda data: data + b"\n\n"),
        st.binary(min_size=1, max_size=30),
        st.sampled_from([EVENT, b"\r\n", b"0\r\n\r\n", b"9\r\n" + EVENT, b"\n\n", b"x" * 4090]),
    ),
    max_size=8,
)
SIZES = st.sampled_from(["%x", "%X", "0%x", "%x;a=b"])


@given(PIECES, st.lists(SIZES, min_size=8, max_size=8), st.sets(st.integers(0, 400)), st.booleans())
def test_stream_cut_anywhere_arrives_as_it_was(
    pieces: list[bytes], sizes: list[str], cuts: set[int], trailer: bool
) -> None:
    """Whatever is in an event, however it is framed, and wherever a read ends."""
    chunks = [
        chunk(piece, (size % len(piece)).encode())
        for piece, size in zip(pieces, sizes, strict=False)
    ]
    end = b"0\r\nX-Trailer: 1\r\n\r\n" if trailer else b"0\r\n\r\n"
    # Reads end where chunks do, and at the cuts.
    ends, at = set(cuts), 0
    for data in chunks:
        at += len(data)
        ends.add(at)
    whole = b"".join([*chunks, end])
    marks = sorted({0, len(whole), *(each for each in ends if each < len(whole))})
    sink = answered(HEAD, *(whole[start:stop] for start, stop in pairwise(marks)))
    assert sink.body == b"".join(pieces)
    assert sink.ended


def test_events_that_come_one_by_one_pass_unparsed() -> None:
    """The first chunk shows the parser that there are chunks."""
    sink = answered(HEAD, *[chunk(EVENT)] * 5, b"0\r\n\r\n")
    assert sink.spliced_events == 4
    assert sink.ended


def test_read_within_a_chunks_size_is_not_taken_for_its_beginning() -> None:
    """What follows looks like a chunk of its own, and is a piece of a larger one."""
    event = EVENT + b"\r\n" + b"x" * 14
    whole = chunk(event)
    assert whole.startswith(b"19\r\n")
    reads = (chunk(EVENT) + whole[:1], whole[1:15], whole[15:])
    assert reads[1] == chunk(EVENT)
    sink = answered(HEAD, *reads, b"0\r\n\r\n")
    assert sink.body == EVENT + event
    assert sink.ended


@pytest.mark.parametrize(
    "read",
    [
        b"9\r\ndata: 1\n\nxx",
        b"9\r\ndata: 1\n\n\n\n",
        b"\r\n" + EVENT,
        b"-2\r\n",
        b"0x9\r\n" + EVENT + b"\r\n",
        b"9 9\r\n" + EVENT + b"\r\n",
    ],
)
def test_what_is_no_chunk_is_a_broken_answer(read: bytes) -> None:
    """It is the parser's to judge, also behind events that have passed."""
    sink = answered(HEAD, chunk(EVENT), chunk(EVENT), read, chunk(EVENT), b"0\r\n\r\n")
    assert sink.failed
    assert not sink.ended
    assert sink.body.startswith(EVENT * 2)


@pytest.mark.parametrize(
    "read",
    [b"", b"0\r\n\r\n", chunk(EVENT)[:-1], chunk(EVENT) * 2, chunk(b"no end"), chunk(EVENT, b"09")],
)
def test_anything_but_one_whole_event_is_left_to_others(read: bytes) -> None:
    """So is an event in a framing that is not ours, though it may be right."""
    written: list[bytes] = []
    assert not Splice(written.append, Meter()).take(read)
    assert written == []


def test_latest_events_are_told_once_without_their_framing() -> None:
    """The last three, in order."""
    splice = Splice(lambda data: None, Meter())
    for number in range(10):
        assert splice.take(chunk(b"data: %d\n\n" % number))
    assert list(splice.latest()) == [b"data: 7\n\n", b"data: 8\n\n", b"data: 9\n\n"]
    assert list(splice.latest()) == []


def test_bytes_that_pass_are_counted() -> None:
    """With their framing, as they leave."""
    meter = Meter()
    Splice(lambda data: None, meter).take(chunk(EVENT))
    assert meter.bytes_to_clients == len(chunk(EVENT))
