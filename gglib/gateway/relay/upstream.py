"""Connections to engines: one protocol per connection, one pool per server."""

from __future__ import annotations

import asyncio
from typing import Protocol

import httptools

from gglib.domain.server_address import ServerAddress
from gglib.gateway.relay.dialing import Dialer, dialer_for
from gglib.gateway.relay.heads import AnswerHead, HeadBytes, Headers
from gglib.gateway.relay.splice import Splice
from gglib.services.serving import RunningServer

__all__ = ["AnswerSink", "UpstreamConnection", "UpstreamPool", "UpstreamPools"]

_MAX_HEAD_BYTES = 256 * 1024
_MAX_IDLE = 256


class AnswerSink(Protocol):
    """Who takes an engine's answer, piece by piece. None of these may raise."""

    def answer_started(self, status: int, head: AnswerHead) -> None:
        """Take the head, which is the connection's: read it now."""

    def answer_body(self, data: bytes) -> None:
        """Take a piece of the body."""

    def splice(self) -> Splice | None:
        """Return who takes what comes next, where a chunk begins; ``None``: go on as before."""

    def answer_ended(self) -> None:
        """The answer is complete."""

    def answer_whole(self, status: int, head: AnswerHead, body: bytes) -> None:
        """Take an answer of known length that came in one read: instead of all the others."""

    def flush(self) -> None:
        """All that came in one read has been told: send it on."""

    def upstream_failed(self, reason: str, *, clean_close: bool) -> None:
        """The connection ended, or made no sense, before the answer was complete."""


class UpstreamConnection(asyncio.Protocol):
    """One keep-alive connection to an engine; serves one request at a time."""

    __slots__ = (
        "_chunk_ended",
        "_ended",
        "_head",
        "_head_bytes",
        "_head_done",
        "_head_only",
        "_headers",
        "_keep",
        "_known",
        "_known_status",
        "_once",
        "_parser",
        "_pool",
        "_sink",
        "_splice",
        "_status",
        "closed",
        "paused",
        "transport",
        "used",
    )

    def __init__(self, pool: UpstreamPool) -> None:
        self._pool = pool
        self._sink: AnswerSink | None = None
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.used = False
        """Whether a request was answered on it: such a one may have gone stale."""
        self.closed = False
        self.paused = False
        """Whether the engine is held back."""
        self._headers: Headers = []
        self._head = AnswerHead([])
        self._status = 0
        self._known: HeadBytes | None = None
        """The latest answer's head, when the answer was whole in one read."""
        self._known_status = 0
        self._head_done = False
        self._head_only = False
        self._head_bytes = 0
        self._chunk_ended = False
        """Whether a chunk's end was the last that the parser has told of."""
        self._ended = False
        """Whether the answer's end was parsed, in the read that is being parsed."""
        self._keep = False
        """Whether the connection can be used again then."""
        self._once = False
        """Whether it is not to be used again, whatever the engine says."""
        self._splice: Splice | None = None
        """Of the answer that is on its way, when the next byte is a chunk's first."""
        self._parser = httptools.HttpResponseParser(self)

    # The exchange

    def send(
        self,
        sink: AnswerSink,
        head: bytes,
        body: bytes,
        head_only: bool = False,
        once: bool = False,
    ) -> None:
        """Send a request; its answer goes to ``sink``. ``head_only``: it will have no body.

        ``once``: the engine may leave the request's body unread, and take it for a request.
        """
        self._sink = sink
        self._head_only = head_only
        if once:
            self._once, self._known = True, None
        self._headers = []
        self._head_done = False
        self._head_bytes = 0
        if len(body) < 65536:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)

    def abandon(self) -> None:
        """Drop the connection at once, so that the engine stops working on the answer."""
        self._sink = self._splice = None
        self.closed = True
        self.transport.abort()

    def pause_reading(self) -> None:
        """Hold the engine back: its client does not read fast enough."""
        if not self.paused and not self.closed:
            self.paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Let the engine go on."""
        if self.paused and not self.closed:
            self.paused = False
            self.transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        splice = self._splice
        if splice is not None:
            if splice.take(data):
                return
            self._splice = None
        sink = self._sink
        if sink is None:
            # An engine that speaks unasked is not one to reuse.
            self._pool.forget(self)
            self.abandon()
            return
        if not self._head_done:
            if self._known is not None and self._head_bytes == 0:
                body_at = self._known.body_at(data)
                if body_at >= 0:
                    self._answer_known(sink, data, body_at)
                    return
            self._head_bytes += len(data)
        first_read = self._head_bytes == len(data) and not self._head_done
        if not self._parsed(data):
            return
        if self._ended:
            self._end(sink, HeadBytes.of(data) if first_read and self._keep else None)
            return
        if self._chunk_ended and data.endswith(b"\r\n"):
            # Without a line's end, it may be within the size of the next chunk already.
            self._splice = sink.splice()
        sink.flush()

    def _parsed(self, data: bytes) -> bool:
        """Parse what came; whether it made sense."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("the engine switched protocols unasked")
            return False
        except httptools.HttpParserError as error:
            if not self._ended:
                self._fail(f"the engine's answer is not HTTP: {error}")
                return False
            # The answer is whole, and what follows it is nobody's.
            self._keep = False
        if not self._head_done and self._head_bytes > _MAX_HEAD_BYTES:
            self._fail("the head of the engine's answer is too large")
            return False
        return True

    def _answer_known(self, sink: AnswerSink, data: bytes, body_at: int) -> None:
        """Pass on an answer that differs from the latest one in its body alone."""
        self._sink = None
        self._pool.put_back(self)
        sink.answer_whole(self._known_status, self._head, data[body_at:])

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        sink, self._sink = self._sink, None
        self._splice = None
        if sink is not None:
            reason = str(exc) if exc is not None else "the engine closed the connection"
            sink.upstream_failed(reason, clean_close=exc is None)
        else:
            self._pool.forget(self)

    def pause_writing(self) -> None:
        """Nothing to hold back: a request is in memory as a whole already."""

    def resume_writing(self) -> None:
        """See ``pause_writing``."""

    def _fail(self, reason: str) -> None:
        sink, self._sink = self._sink, None
        self.closed = True
        self.transport.abort()
        if sink is not None:
            sink.upstream_failed(reason, clean_close=False)

    # httptools callbacks

    def on_message_begin(self) -> None:
        if self._ended:
            # Bytes behind a complete answer: whatever they are, nobody asked for them.
            self._keep = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._ended:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._headers = []
            return
        self._head_done = True
        self._status = status
        self._known = None
        if self._sink is not None:
            if not self._head.is_again(self._headers):
                self._head = AnswerHead(self._headers)
            # Trailers, which may still come, are dropped with the framing they belong to.
            self._headers = []
            self._sink.answer_started(status, self._head)
            if self._head_only:
                self._end_without_body()

    def _end_without_body(self) -> None:
        """End an answer to HEAD, of which the parser expects the body that its head announces."""
        sink, self._sink = self._sink, None
        self.closed = True
        self.transport.close()
        if sink is not None:
            sink.answer_ended()

    def on_body(self, body: bytes) -> None:
        if self._sink is not None and not self._ended:
            self._sink.answer_body(body)

    def on_chunk_header(self) -> None:
        self._chunk_ended = False

    def on_chunk_complete(self) -> None:
        self._chunk_ended = True

    def on_message_complete(self) -> None:
        self._chunk_ended = False
        # Told when the whole read is parsed: until then more may follow, and who is told may ask
        # again at once, on this very connection.
        if self._sink is not None and self._head_done and not self._ended:
            self._ended = True
            self._keep = self._parser.should_keep_alive() and not self._once

    def _end(self, sink: AnswerSink, known: HeadBytes | None) -> None:
        """End an answer that was parsed whole; ``known``: its head, if it came in one read."""
        self._ended = False
        if self._sink is not sink:
            return  # It was abandoned meanwhile.
        self._sink = None
        self.used = True
        self._known, self._known_status = known, self._status
        if self._keep:
            self._pool.put_back(self)
        else:
            self.closed = True
            self.transport.close()
        sink.answer_ended()


class UpstreamPool:
    """Idle connections to one server, the most recently used first."""

    __slots__ = ("_closed", "_idle", "address", "dialer", "request_head_tail", "target_prefix")

    def __init__(self, server: RunningServer) -> None:
        self.address = ServerAddress.parse(server.base_url)
        self.dialer: Dialer = dialer_for(server.handle, self.address)
        self._idle: list[UpstreamConnection] = []
        self._closed = False
        key = f"authorization: Bearer {server.api_key}\r\n" if server.api_key else ""
        self.target_prefix = f" {self.address.path_prefix}".encode("ascii")
        """What stands between the method and the target."""
        self.request_head_tail = f" HTTP/1.1\r\nhost: {self.address.host_header}\r\n{key}".encode(
            "latin-1"
        )
        """What follows the target, the same in every request to this server."""

    def take(self) -> UpstreamConnection | None:
        """Return an idle connection, or ``None``."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and not connection.transport.is_closing():
                return connection
        return None

    async def connect(self) -> UpstreamConnection:
        """Open a connection.

        Raises:
            OSError: the server does not accept one.
            ServerUntrusted: it has a certificate that is not trusted.
        """
        return await self.dialer.open(lambda: UpstreamConnection(self))

    def put_back(self, connection: UpstreamConnection) -> None:
        """Keep a connection for the next request."""
        if self._closed or len(self._idle) >= _MAX_IDLE:
            connection.closed = True
            connection.transport.close()
        else:
            if connection.paused:
                connection.resume_reading()
            self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """Drop an idle connection that has closed."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it is put back."""
        self._closed = True
        while self._idle:
            connection = self._idle.pop()
            connection.closed = True
            connection.transport.close()


class UpstreamPools:
    """The pool of every running server."""

    __slots__ = ("_pools",)

    def __init__(self) -> None:
        self._pools: dict[RunningServer, UpstreamPool] = {}

    def of(self, server: RunningServer) -> UpstreamPool:
        """Return the server's pool."""
        pool = self._pools.get(server)
        if pool is None:
            pool = self._pools[server] = UpstreamPool(server)
        return pool

    def drop(self, server: RunningServer) -> None:
        """Close the pool of a server that is gone."""
        pool = self._pools.pop(server, None)
        if pool is not None:
            pool.close()

    def close(self) -> None:
        """Close every pool."""
        while self._pools:
            self._pools.popitem()[1].close()
