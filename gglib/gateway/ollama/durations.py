"""How long a model is to stay: ``keep_alive``, as Ollama's clients write it."""

from __future__ import annotations

import math
import re

from gglib.errors import InvalidRequest

__all__ = ["DURATION_PATTERN", "keep_alive_s"]

#: Go's units, in seconds.
_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_NUMBER = re.compile(r"\d+\.?\d*|\.\d+", re.ASCII)
#: What ``keep_alive_s`` takes for a text, but for white space around it.
DURATION_PATTERN = (
    r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+|(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$"
)
_LONGEST = 100
#: More is for ever: some 292 years, Go's longest duration.
_FOR_EVER_S = 2**63 / 1e9


def keep_alive_s(value: float | str) -> float | None:
    """Return the seconds that a model may idle; ``None`` = for ever, as anything below 0.

    A number is seconds; a text is one of Go's durations (``5m``, ``1h30m``, ``-1m``), or a
    number, too: programs send what somebody typed.

    Raises:
        InvalidRequest: it is neither.
    """
    seconds = _seconds(value) if isinstance(value, str) else value
    if seconds is None or math.isnan(seconds):
        shown = str(value)[:_LONGEST]
        raise InvalidRequest(f"keep_alive '{shown}' is no duration; say 5m, 300, 0 or -1")
    return None if seconds < 0 or seconds > _FOR_EVER_S else float(seconds)


def _seconds(text: str) -> float | None:
    text = text.strip()
    if len(text) > _LONGEST:
        return None
    sign = -1.0 if text.startswith("-") else 1.0
    rest = text[1:] if text[:1] in ("-", "+") else text
    if _NUMBER.fullmatch(rest):
        return sign * float(rest)
    total, at = 0.0, 0
    while (part := _PART.match(rest, at)) is not None:
        total += float(part[1]) * _UNITS[part[2]]
        at = part.end()
    return sign * total if at and at == len(rest) else None
