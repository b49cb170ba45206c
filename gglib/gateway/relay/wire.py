"""HTTP/1.1 as bytes: status lines, which headers travel, whole answers."""

from __future__ import annotations

import http
from collections.abc import Iterable

__all__ = [
    "CONTINUE",
    "LAST_CHUNK",
    "REQUEST_HEADERS_KEPT_HERE",
    "RESPONSE_HEADERS_KEPT_THERE",
    "STATUS_LINES",
    "chunk",
    "cors_lines",
    "travelling",
    "whole_answer",
]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

#: Hop-by-hop (RFC 9110 §7.6.1) and framing: each side of the gateway has its own.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

#: Request headers that do not go to the engine: hop-by-hop, framing, and whatever is a secret
#: between the client and us. Compression is not asked for: we may have to add to a stream.
REQUEST_HEADERS_KEPT_HERE = _HOP_BY_HOP | {
    b"accept-encoding",
    b"authorization",
    b"api-key",
    b"content-length",
    b"cookie",
    b"expect",
    b"host",
    b"origin",
    b"referer",
    b"x-api-key",
    b"x-request-id",
}

#: Response headers of an engine that do not go to the client: who may read an answer across
#: origins is decided here, not by an engine that believes it serves loopback only.
RESPONSE_HEADERS_KEPT_THERE = _HOP_BY_HOP | {
    b"access-control-allow-credentials",
    b"access-control-allow-headers",
    b"access-control-allow-methods",
    b"access-control-allow-origin",
    b"access-control-expose-headers",
    b"access-control-max-age",
    b"alt-svc",
    b"server",
    b"set-cookie",
    b"x-request-id",
}


def _status_line(status: int) -> bytes:
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode("ascii")


STATUS_LINES = {status: _status_line(status) for status in range(100, 1000)}


def travelling(headers: list[tuple[bytes, bytes]], kept: frozenset[bytes]) -> bytes:
    """Return the header lines that go on to the other side.

    Neither those in ``kept`` nor those that a Connection header declares hop-by-hop. Names
    are in lower case.
    """
    named = [
        token.strip().lower()
        for name, value in headers
        if name == b"connection"
        for token in value.split(b",")
    ]
    return b"".join(
        b"%b: %b\r\n" % (name, value)
        for name, value in headers
        if name not in kept and name not in named
    )


def cors_lines(origin: bytes) -> bytes:
    """Return the header lines that let a page of ``origin`` read an answer."""
    return (
        b"access-control-allow-origin: %b\r\nvary: origin\r\n"
        b"access-control-expose-headers: x-request-id, retry-after, x-should-retry\r\n" % origin
    )


def chunk(data: bytes) -> bytes:
    """Return ``data`` (not empty) as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole_answer(
    status: int,
    body: bytes,
    *,
    headers: Iterable[tuple[str, str]] = (),
    lines: bytes = b"",
    close: bool,
    head_only: bool = False,
) -> bytes:
    """Return a complete answer of our own; ``lines`` are further lines of its head.

    ``head_only``: the request was a HEAD.
    """
    parts = [STATUS_LINES[status]]
    parts += [f"{name}: {value}\r\n".encode("latin-1") for name, value in headers]
    parts.append(lines)
    parts.append(b"content-length: %d\r\n" % len(body))
    if close:
        parts.append(b"connection: close\r\n")
    parts.append(b"\r\n")
    if not head_only:
        parts.append(body)
    return b"".join(parts)
