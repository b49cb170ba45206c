"""Server-sent events that are ours, in the words of the API that a client speaks."""

from __future__ import annotations

import time

import msgspec

from gglib.errors import GglibError
from gglib.gateway.problems import error_object, problem_for

__all__ = ["COMMENT", "error_event", "reasoning_event", "speaks_anthropic"]

#: Is no event: clients and proxies see that somebody is there.
COMMENT = b": waiting\n\n"

#: Anthropic's names of errors, by status. Source: its API reference.
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def speaks_anthropic(target: bytes) -> bool:
    """Whether a request to ``target`` expects Anthropic's events."""
    return target.startswith(b"/v1/messages")


def error_event(error: GglibError, target: bytes) -> bytes:
    """Return the event that ends a stream with ``error``."""
    told = error_object(error)
    if not speaks_anthropic(target):
        return b"data: %b\n\n" % msgspec.json.encode({"error": told})
    kind = _ANTHROPIC_TYPES.get(problem_for(error).status, "api_error")
    body = {"type": "error", "error": {"type": kind, "message": told["message"]}}
    return b"event: error\ndata: %b\n\n" % msgspec.json.encode(body)


def reasoning_event(model: str, text: str, *, request_id: bytes) -> bytes:
    """Return a chunk of a chat completion whose reasoning is ``text``."""
    delta = {"role": "assistant", "content": None, "reasoning_content": text}
    body = {
        "id": request_id.decode("latin-1"),
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
    }
    return b"data: %b\n\n" % msgspec.json.encode(body)
