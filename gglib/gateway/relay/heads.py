"""Headers, understood once: a peer mostly sends the same ones again, but for their length."""

from __future__ import annotations

import re
from typing import NamedTuple

from gglib.domain.access import NOTHING
from gglib.errors import InvalidRequest
from gglib.gateway.relay.form import boundary_of
from gglib.gateway.relay.wire import (
    REQUEST_HEADERS_KEPT_HERE,
    RESPONSE_HEADERS_KEPT_THERE,
    STATUS_LINES,
    cors_lines,
    travelling,
)

__all__ = ["AnswerHead", "Head", "HeadBytes", "Headers", "RequestHead"]

Headers = list[tuple[bytes, bytes]]

_EVENT_STREAM = b"text/event-stream"
_JSON = b"application/json"
_MAX_REQUEST_ID_BYTES = 200

#: Request headers that decide something here: a second one would leave open which decides.
_ONCE = frozenset(
    {
        b"authorization",
        b"content-length",
        b"expect",
        b"host",
        b"origin",
        b"transfer-encoding",
        b"x-api-key",
        b"x-request-id",
    }
)


_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)


class HeadBytes:
    """The bytes of a head that the parser has accepted, around the digits of its length.

    A message whose head is the same but for those digits, and that is whole in one read, needs
    no parsing: the same bytes mean the same.
    """

    __slots__ = ("_before", "_behind", "_digits", "_fixed")

    def __init__(self, before: bytes, behind: bytes) -> None:
        self._before = before
        self._behind = behind
        self._fixed = len(before) + len(behind)
        self._digits = 1
        """How many digits the latest length had: mostly the next has as many."""

    @classmethod
    def of(cls, message: bytes) -> HeadBytes | None:
        """Return the head's bytes if ``message`` is one whole message with a Content-Length."""
        end = message.find(b"\r\n\r\n") + 4
        found = _LENGTH.search(message, 0, end)
        if found is None or int(found[1]) != len(message) - end:
            return None
        return cls(message[: found.start(1)], message[found.end(1) : end])

    def body_at(self, data: bytes) -> int:
        """Return where the body begins if ``data`` is one whole message with this head, else -1.

        Its length says what its head must be: it is made, and compared with what is there.
        """
        beyond = len(data) - self._fixed
        size = beyond - self._digits
        length = b"%d" % size
        if size < 0 or len(length) != self._digits:
            self._digits = len(b"%d" % beyond)
            length = b"%d" % (beyond - self._digits)
            if len(length) < self._digits:
                self._digits -= 1
                length = b"%d" % (beyond - self._digits)
            if len(length) != self._digits:
                return -1  # no length has so many digits, and leaves so many bytes
        if data.startswith(self._before + length + self._behind):
            return self._fixed + len(length)
        return -1


class Head:
    """A head's headers, in lower case, and apart from them its Content-Length."""

    __slots__ = ("_length_at", "_length_name", "_rest", "headers", "length")

    def __init__(self, raw: Headers) -> None:
        self.headers: Headers = [(name.lower(), value) for name, value in raw]
        self.length: bytes | None = None
        self._length_at = -1
        self._length_name = b""
        self._rest = raw
        for index, (name, value) in enumerate(self.headers):
            if name == b"content-length":
                self._length_at = index
                self._length_name = raw[index][0]
                self._rest = raw[:index] + raw[index + 1 :]
                self.length = value
                break

    def headers_now(self) -> Headers:
        """Return the headers with the length of the latest message."""
        length = self.length
        return [
            (name, length if name == b"content-length" and length is not None else value)
            for name, value in self.headers
        ]

    def value_of(self, name: bytes) -> str | None:
        """Return the value of a header that decides nothing else; of several, the first."""
        for key, value in self.headers:
            if key == name:
                return value.decode("latin-1")
        return None

    def is_again(self, raw: Headers) -> bool:
        """Whether ``raw`` are these headers but for the length, which is taken over."""
        at = self._length_at
        if at < 0:
            return raw == self._rest
        if len(raw) <= at:
            return False
        item = raw.pop(at)
        if item[0] == self._length_name and raw == self._rest:
            self.length = item[1]
            return True
        raw.insert(at, item)
        return False


class RequestHead(Head):
    """What a client's headers come to.

    Raises:
        InvalidRequest: one that decides something is there twice.
    """

    __slots__ = (
        "admitted",
        "authorization",
        "boundary",
        "cors_lines",
        "expects_continue",
        "fetch_site",
        "grant",
        "host",
        "is_chunked",
        "origin",
        "request_id",
        "sent_on",
        "travelling",
    )

    def __init__(self, raw: Headers) -> None:
        super().__init__(raw)
        noted: dict[bytes, bytes] = {}
        for name, value in self.headers:
            if name in _ONCE:
                if name in noted:
                    raise InvalidRequest(f"the request has two {name.decode()} headers")
                noted[name] = value
        self.host = noted.get(b"host")
        self.origin = noted.get(b"origin")
        self.cors_lines = b"" if self.origin is None else cors_lines(self.origin)
        """What lets the page that sent this read the answer, if it is let in."""
        self.authorization = noted.get(b"authorization")
        if self.authorization is None and b"x-api-key" in noted:
            # As Anthropic's clients send it.
            self.authorization = b"Bearer " + noted[b"x-api-key"]
        named = dict(self.headers)
        self.boundary = boundary_of(named.get(b"content-type", b""))
        """Of a form; ``None``: the body is something else."""
        self.fetch_site = named.get(b"sec-fetch-site")
        self.expects_continue = noted.get(b"expect", b"").lower() == b"100-continue"
        self.is_chunked = b"transfer-encoding" in noted
        request_id = noted.get(b"x-request-id", b"")
        usable = 0 < len(request_id) <= _MAX_REQUEST_ID_BYTES and request_id.isascii()
        self.request_id = request_id if usable else None
        self.travelling = travelling(self.headers, REQUEST_HEADERS_KEPT_HERE)
        self.sent_on: SentOn | None = None
        """The latest request with this head, as far as the next to the same place is like it."""
        self.admitted = False
        """Whether a relayed request with this head has been let in: so is the next."""
        self.grant = NOTHING
        """What whoever sent it may do, where a relayed request with it has been let in."""


class SentOn(NamedTuple):
    """How a request with a client's head begins on its way to an engine."""

    method: bytes
    target: bytes
    pool_head: bytes
    """What every request to that server says."""
    prefix: bytes
    """All of them, and what travels, up to the request's id."""


class AnswerHead(Head):
    """What an engine's headers come to."""

    __slots__ = ("_begun", "is_encoded", "is_event_stream", "is_json", "travelling")

    def __init__(self, raw: Headers) -> None:
        super().__init__(raw)
        named = dict(self.headers)
        self.is_encoded = b"transfer-encoding" in named
        kind = named.get(b"content-type", b"").lower()
        self.is_event_stream = kind.startswith(_EVENT_STREAM)
        self.is_json = kind.startswith(_JSON)
        self._begun = (0, b"")
        self.travelling = travelling(
            [item for item in self.headers if item[0] != b"content-length"],
            RESPONSE_HEADERS_KEPT_THERE,
        )

    def begun(self, status: int) -> bytes:
        """Return the head for a client, up to the digits of its Content-Length."""
        known, begun = self._begun
        if known != status:
            line = STATUS_LINES.get(status, STATUS_LINES[502])
            begun = b"%b%bcontent-length: " % (line, self.travelling)
            self._begun = (status, begun)
        return begun
