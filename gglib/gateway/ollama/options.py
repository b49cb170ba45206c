"""Ollama's ``options`` and ``format``, in the words of llama-server."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from gglib.errors import InvalidRequest

__all__ = ["OPTION_SCHEMAS", "response_format", "sampling"]

_NUMBERS = {
    name: name
    for name in (
        "temperature",
        "top_p",
        "min_p",
        "typical_p",
        "repeat_penalty",
        "presence_penalty",
        "frequency_penalty",
        "mirostat_tau",
        "mirostat_eta",
    )
}
_INTEGERS = {
    "top_k": "top_k",
    "seed": "seed",
    "repeat_last_n": "repeat_last_n",
    "mirostat": "mirostat",
    "num_keep": "n_keep",
    "num_predict": "max_tokens",
}
_SHOWN = 100
#: What both sides can write.
_LEAST, _MOST = -(2**63), 2**63 - 1

#: What ``sampling`` takes, as JSON Schema.
OPTION_SCHEMAS: dict[str, Any] = {
    **{
        name: {"type": ["number", "null"], "minimum": _LEAST, "maximum": _MOST} for name in _NUMBERS
    },
    **{
        name: {"type": ["integer", "null"], "minimum": _LEAST, "maximum": _MOST}
        for name in _INTEGERS
    },
    "stop": {
        "anyOf": [
            {"type": ["string", "null"]},
            {"type": "array", "items": {"type": "string"}},
        ]
    },
}


def sampling(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a request's ``options`` mean to an engine. What is not said is not sent.

    Those of loading (``num_ctx``, ``num_gpu`` …) belong to the model here and are ignored, as
    are those that Ollama itself no longer knows.

    Raises:
        InvalidRequest: one has the wrong type.
    """
    found: dict[str, Any] = {}
    for name, value in (options or {}).items():
        if value is None:
            continue
        if name in _NUMBERS:
            found[_NUMBERS[name]] = _number(name, value)
        elif name in _INTEGERS:
            found[_INTEGERS[name]] = _integer(name, value)
        elif name == "stop":
            found["stop"] = _texts(name, value)
    if found.get("max_tokens", 1) <= 0:
        # As many as there are: without end (-1), or until the context is full (-2).
        del found["max_tokens"]
    return found


def response_format(value: msgspec.Raw) -> dict[str, Any] | None:
    """Return OpenAI's ``response_format`` for a request's ``format``; ``None``: any text.

    Raises:
        InvalidRequest: it is neither ``json`` nor a schema.
    """
    said = bytes(value)
    if said in (b"null", b'""'):
        return None
    if said == b'"json"':
        return {"type": "json_object"}
    if not said.startswith(b"{"):
        shown = said[:_SHOWN].decode("utf-8", "replace")
        raise InvalidRequest(
            f'invalid format: {shown}; expected "json" or a valid JSON Schema object'
        )
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": value},
    }


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _fits(value):
        raise _wrong(name, "a number")
    return value


def _integer(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _fits(value):
        raise _wrong(name, "an integer")
    if value != int(value):
        raise _wrong(name, "an integer")
    return int(value)


def _fits(number: float) -> bool:
    return math.isfinite(number) and _LEAST <= number <= _MOST


def _texts(name: str, value: object) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
        raise _wrong(name, "an array of strings")
    return texts


def _wrong(name: str, kind: str) -> InvalidRequest:
    return InvalidRequest(f'option "{name}" must be {kind}', f"options.{name}")
