"""How many tokens an answer took, read from its first and last bytes: it is never held whole."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

__all__ = ["HEAD_BYTES", "NO_USAGE", "TAIL_BYTES", "Usage", "usage_in"]

#: What is kept of an answer: where its ``usage`` is, in all that engines send. Lists of vectors
#: and of ranks come after it, texts and streams before it.
HEAD_BYTES = 1024
TAIL_BYTES = 2048

# A text within JSON has its quotes escaped: what matches is a key, not what a model has said.
_KEY = b'"usage"'
_PROMPT = re.compile(rb'"(?:prompt|input)_tokens"\s*:\s*(\d{1,12})\b')
_COMPLETION = re.compile(rb'"(?:completion|output)_tokens"\s*:\s*(\d{1,12})\b')
_TIMINGS = b'"timings"'
_CACHED = re.compile(rb'"cache_n"\s*:\s*(\d{1,12})\b')
_READ = re.compile(rb'"prompt_n"\s*:\s*(\d{1,12})\b')
_WRITTEN = re.compile(rb'"predicted_n"\s*:\s*(\d{1,12})\b')
_SPEED = re.compile(rb'"predicted_per_second"\s*:\s*(\d{1,12}(?:\.\d{1,20})?)')


#: A counter never goes back, whatever an engine says.
_Count = Annotated[int, msgspec.Meta(ge=0, lt=10**12)]


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens, as an engine counts them; ``None``: it did not say."""

    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    tokens_per_second: float | None = None
    """Of the completion."""


class _Whole(msgspec.Struct, gc=False):
    """What an answer of OpenAI's form says of itself: the rest is not decoded."""

    usage: Usage | None = None
    timings: msgspec.Raw = msgspec.Raw()


NO_USAGE = Usage()
_decode = msgspec.json.Decoder(_Whole).decode


def usage_in(head: bytes, tail: bytes | bytearray | None) -> Usage:
    """Return what an answer tells of its tokens.

    ``head`` is its beginning, ``tail`` its end; ``None``: ``head`` is the whole.
    """
    if tail is not None:
        return _search(tail, head)
    if head.startswith(b"{"):
        try:
            found = _decode(head)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            # Whatever an engine of the user's sends, the answer has gone to the client.
            return NO_USAGE
        if found.usage is not None and not found.timings:
            return found.usage
    return _search(head, head)


def _search(tail: bytes | bytearray, head: bytes) -> Usage:
    """Look for the last ``usage`` in ``tail``; what it lacks may be in the first in ``head``."""
    last, first = tail.rfind(_KEY), head.find(_KEY)
    prompt = completion = None
    if last >= 0:
        prompt = _number(_PROMPT, tail, last)
        completion = _number(_COMPLETION, tail, last)
    if first >= 0:
        prompt = _number(_PROMPT, head, first) if prompt is None else prompt
        completion = _number(_COMPLETION, head, first) if completion is None else completion
    at = tail.rfind(_TIMINGS)
    if at < 0:
        return Usage(prompt, completion)
    # llama-server's: it tells them with every answer, also where nobody has asked for usage.
    if prompt is None and (read := _number(_READ, tail, at)) is not None:
        prompt = read + (_number(_CACHED, tail, at) or 0)
    if completion is None:
        completion = _number(_WRITTEN, tail, at)
    speed = _SPEED.search(tail, at)
    return Usage(prompt, completion, None if speed is None else float(speed[1]))


def _number(pattern: re.Pattern[bytes], text: bytes | bytearray, at: int) -> int | None:
    found = pattern.search(text, at)
    return None if found is None else int(found[1])
