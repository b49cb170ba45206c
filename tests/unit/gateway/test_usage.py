"""Tokens are read from the ends of an answer, in every form that engines send."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglib.gateway.relay.usage import HEAD_BYTES, NO_USAGE, TAIL_BYTES, Usage, usage_in

USAGE = {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16}
TIMINGS = {"cache_n": 4, "prompt_n": 5, "prompt_ms": 1.0, "predicted_n": 7}
TIMINGS |= {"predicted_ms": 70.0, "predicted_per_second": 100.25}


def ends(text: str) -> tuple[bytes, bytes | None]:
    """Return what is kept of a text."""
    raw = text.encode()
    if len(raw) <= HEAD_BYTES + TAIL_BYTES:
        return raw, None
    return raw[:HEAD_BYTES], raw[-TAIL_BYTES:]


def stream(*events: object) -> str:
    """Return server-sent events."""
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


DELTA = {"choices": [{"delta": {"content": 'he said "usage": {"prompt_tokens": 1000}'}}]}
LONG = [DELTA] * 100


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (json.dumps({"id": "1", "usage": USAGE}), Usage(9, 7)),
        (json.dumps({"usage": {"prompt_tokens": 9, "total_tokens": 9}}), Usage(9, None)),
        (json.dumps({"id": "1", "usage": USAGE, "timings": TIMINGS}), Usage(9, 7, 100.25)),
        (json.dumps({"content": "x", "timings": TIMINGS}), Usage(9, 7, 100.25)),
        (json.dumps({"content": "x" * 9000, "usage": USAGE}), Usage(9, 7)),
        (json.dumps({"usage": USAGE, "data": [0.5] * 9000}), Usage(9, 7)),
        (
            json.dumps({"usage": {**USAGE, "prompt_tokens_details": {"cached_tokens": 3}}}),
            Usage(9, 7),
        ),
        (stream(DELTA, {"choices": [], "usage": USAGE}), Usage(9, 7)),
        (stream(*LONG, {"choices": [], "usage": USAGE}), Usage(9, 7)),
        (stream(*LONG, {"usage": None}, {"choices": [], "usage": USAGE}), Usage(9, 7)),
        (stream(*LONG, {"choices": [], "timings": TIMINGS}), Usage(9, 7, 100.25)),
        (
            stream(
                {"type": "message_start", "message": {"usage": {"input_tokens": 9}}},
                *LONG,
                {"type": "message_delta", "usage": {"output_tokens": 7}},
            ),
            Usage(9, 7),
        ),
        (stream(*LONG), NO_USAGE),
        (json.dumps({"usage": None}), NO_USAGE),
        (json.dumps({"usage": {"prompt_tokens": -5}}), NO_USAGE),
        (json.dumps({"usage": {"prompt_tokens": 10**30}}), NO_USAGE),
        (json.dumps({"usage": "none"}), NO_USAGE),
        (json.dumps({"usage": {"prompt_tokens": "many"}}), NO_USAGE),
        (json.dumps([USAGE]), NO_USAGE),
        (json.dumps({"usage": USAGE})[:-5], NO_USAGE),
        ("", NO_USAGE),
    ],
)
def test_tokens_are_found_wherever_engines_put_them(text: str, found: Usage) -> None:
    """In the body, before long lists, at a stream's end or both its ends; in timings, else."""
    assert usage_in(*ends(text)) == found


@given(st.text())
def test_what_a_model_says_is_no_usage(said: str) -> None:
    """Quotes within a text are escaped: it cannot pass for a key."""
    said += ' "usage": {"prompt_tokens": 5, "completion_tokens": 6} "timings": {"predicted_n": 8}'
    document = {"choices": [{"message": {"content": said}}]}
    assert usage_in(*ends(json.dumps(document))) == NO_USAGE
    assert usage_in(*ends(stream(document))) == NO_USAGE


@given(st.binary(max_size=200), st.none() | st.binary(max_size=200))
def test_no_bytes_are_an_error(head: bytes, tail: bytes | None) -> None:
    """The answer has gone to its client, whatever it was."""
    usage_in(head, tail)
    usage_in(b'{"usage":{"prompt_tokens":' + head, tail)
