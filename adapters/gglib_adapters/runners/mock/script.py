"""How one start of a mock server goes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import attrs

from gglib.domain.validation import at_least, between, flag, number_at_least, positive, texts
from gglib.errors import GglibError, InvalidValue
from gglib_adapters.runners.mock.openai_answers import Reply, echo

__all__ = ["MockScript"]

_SECONDS = number_at_least(0, optional=False)


def _tuple(value: Iterable[Any]) -> Any:
    # What is no list stays as it is: the validators name the field.
    return tuple(value) if isinstance(value, list) else value


def _seconds_or_never(instance: Any, attribute: Any, value: Any) -> None:
    if value != math.inf:
        _SECONDS(instance, attribute, value)


def _error_or_none(_instance: Any, attribute: Any, value: Any) -> None:
    if value is not None and not isinstance(value, GglibError):
        raise InvalidValue(attribute.name, value, "an error of gglib.errors, made with its fields")


def _lines(instance: Any, attribute: Any, value: Any) -> None:
    if value is None:
        raise InvalidValue(attribute.name, value, "a list of texts")
    texts(empty=True)(instance, attribute, value)


def _text_or_function(_instance: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, str) and not callable(value):
        raise InvalidValue(attribute.name, value, "a text, or a function of the request's body")


def _intervals(_instance: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, tuple) or not all(map(_is_interval, value)):
        raise InvalidValue(
            attribute.name, value, "pairs (from, to) of seconds, 0 <= from < to, to may be inf"
        )


def _is_interval(pair: object) -> bool:
    if not isinstance(pair, tuple) or len(pair) != 2:
        return False
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in pair):
        return False
    begin, end = pair
    return bool(0 <= begin < end)


@attrs.frozen(kw_only=True)
class MockScript:
    """How one start goes, and the server that comes of it; by default it is ready at once.

    Seconds are those of the runner's clock, counted from the moment the server's process
    exists, where nothing else is said.

    Raises:
        InvalidValue: a field is out of its range; the error names it, its value and the range.
    """

    start_delay_s: float = attrs.field(default=0.0, validator=_SECONDS)
    """Time inside ``start``, before there is a process."""
    start_error: GglibError | None = attrs.field(default=None, validator=_error_or_none)
    """Raised by ``start`` after its delay; there never is a process."""
    load_s: float = attrs.field(default=0.0, validator=_seconds_or_never)
    """Until it is healthy; ``math.inf`` = never."""
    crash_at_s: float | None = attrs.field(default=None, validator=number_at_least(0))
    """When it ends by itself, ready or not."""
    exit_status: int = attrs.field(default=1, validator=between(-64, 255, optional=False))
    """With what it ends by itself; negative for a signal."""
    unhealthy: tuple[tuple[float, float], ...] = attrs.field(
        default=(), converter=_tuple, validator=_intervals
    )
    """When it runs and does not answer its health check: intervals ``[from, to)``."""
    health_delay_s: float = attrs.field(default=0.0, validator=_SECONDS)
    """How long a health check takes."""
    stop_delay_s: float = attrs.field(default=0.0, validator=_SECONDS)
    """From being asked to stop until it is gone. Beyond the runner's grace it is killed."""
    ignores_stop: bool = attrs.field(default=False, validator=flag(optional=False))
    """Does not heed the asking; is killed after the runner's grace."""
    survives_kill: bool = attrs.field(default=False, validator=flag(optional=False))
    """Neither asking nor killing ends it: ``stop`` raises ``StopFailed`` after the grace."""
    lines: tuple[str, ...] = attrs.field(default=(), converter=_tuple, validator=_lines)
    """Its output, there from the beginning."""
    crash_lines: tuple[str, ...] = attrs.field(default=(), converter=_tuple, validator=_lines)
    """Its output just before it ends by itself."""
    context_size: int | None = attrs.field(default=None, validator=positive)
    """What it reports as its context, in tokens; ``None`` = what its configuration asks for."""
    slots_total: int | None = attrs.field(default=None, validator=positive)
    """How many requests it serves at once; ``None`` = its configuration's ``parallel``."""
    reply: Reply = attrs.field(default=echo, validator=_text_or_function)
    """What it answers, where it has a socket: a text, or a function of the request's body."""
    chunk_delay_s: float = attrs.field(default=0.0, validator=_SECONDS)
    """Before each chunk of a streamed answer: real seconds, since sockets are real."""
    dies_after_chunks: int | None = attrs.field(default=None, validator=at_least(0))
    """Its connection is cut after so many chunks of a streamed answer."""
