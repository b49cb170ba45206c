"""How much, and how long: the bounds of every connection."""

from __future__ import annotations

import attrs

__all__ = ["Limits"]


@attrs.frozen(kw_only=True)
class Limits:
    """Bounds. Sizes in bytes, times in seconds."""

    max_body_bytes: int = 64 * 1024 * 1024
    max_header_bytes: int = 64 * 1024
    header_timeout_s: float = 20.0
    """From a request's first byte to the end of its head."""
    keep_alive_s: float = 75.0
    """How long a connection may idle between requests."""
    stall_timeout_s: float = 60.0
    """How long a client may neither read its answer nor send the rest of its request."""
    silence_timeout_s: float | None = 600.0
    """How long an engine may say nothing while it answers."""
    keepalive_comment_s: float | None = 10.0
    """How often a stream that waits is sent a comment; ``None`` = never."""
    max_pipelined: int = 16
    """Requests queued on one connection before it is no longer read."""
    linger_s: float = 2.0
    """How long a refused connection is still read, so that the refusal arrives."""
    goodbye_s: float = 1.0
    """How long a gateway that ends waits for a client to say that it has heard the end of TLS."""
