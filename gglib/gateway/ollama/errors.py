"""Errors as Ollama tells them: ``{"error": "in words"}``."""

from __future__ import annotations

from typing import Any

import msgspec

from gglib.errors import GglibError, ModelNotFound
from gglib.gateway.problems import ProblemAnswer, answer_for

__all__ = [
    "PREFIX",
    "EngineRefused",
    "answer_at",
    "as_json",
    "reason_in",
    "refusal_of",
    "words_for",
]

#: Of the paths that are Ollama's.
PREFIX = "/api/"
_SHOWN = 200
#: What ends a line to some clients' eyes (Python's ``splitlines``), and not to JSON's.
_LINE_ENDS = (
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
    (b"\xc2\x85", b"\\u0085"),
)


class EngineRefused(Exception):
    """The engine has answered, with an error: what it said, and its status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def as_json(value: Any) -> bytes:
    """Return ``value`` as JSON that is one line, whoever looks."""
    text = msgspec.json.encode(value)
    for raw, escaped in _LINE_ENDS:
        if raw in text:
            text = text.replace(raw, escaped)
    return text


def words_for(error: Exception) -> str:
    """Return what is said of an error. Clients look for Ollama's own words for some."""
    if isinstance(error, ModelNotFound):
        return f"model '{error.name[:_SHOWN]}' not found"
    if isinstance(error, (GglibError, EngineRefused)):
        return str(error)
    return "internal error; the gateway's log has the trace"


def refusal_of(error: Exception, *, status: int | None = None) -> ProblemAnswer:
    """Return the whole answer to an error, with the status and headers that it has anywhere."""
    body = as_json({"error": words_for(error)})
    if isinstance(error, EngineRefused):
        return ProblemAnswer(error.status, (("content-type", "application/json"),), body)
    known = error if isinstance(error, GglibError) else GglibError()
    answer = answer_for(known, status=status)
    return ProblemAnswer(answer.status, answer.headers, body)


def answer_at(path: str, error: GglibError, *, status: int | None = None) -> ProblemAnswer:
    """Return the whole answer to an error, in the words of the API that ``path`` belongs to."""
    if path.startswith(PREFIX):
        return refusal_of(error, status=status)
    return answer_for(error, status=status)


def reason_in(error: Any) -> str:
    """Return what an engine says in an error object of its own."""
    if isinstance(error, dict):
        error = error.get("error", error)
    if isinstance(error, dict):
        error = error.get("message", error)
    return error if isinstance(error, str) else f"the engine failed: {error}"[:_SHOWN]
