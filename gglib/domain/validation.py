"""Validators for attrs fields; each error names the field, the value and the range."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from gglib.errors import InvalidValue

__all__ = [
    "at_least",
    "between",
    "flag",
    "model_name",
    "number_at_least",
    "one_of",
    "positive",
    "schema_of",
    "stating",
    "text",
    "texts",
]

Validator = Callable[[Any, Any, Any], None]
Schema = Mapping[str, Any]

_SCHEMA = "json_schema"


def stating(schema: Schema) -> Callable[[Validator], Validator]:
    """Have a validator state, in JSON Schema's words, what it accepts beside ``None``."""

    def note(check: Validator) -> Validator:
        check.__dict__[_SCHEMA] = schema
        return check

    return note


def schema_of(validator: object) -> Schema:
    """Return what a validator states; of several together, all that they state."""
    parts = getattr(validator, "_validators", (validator,))
    schema: dict[str, Any] = {}
    for part in parts:
        schema.update(getattr(part, _SCHEMA, {}))
    return schema


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_int(value) or (isinstance(value, float) and math.isfinite(value))


def between(low: int, high: int, *, optional: bool = True) -> Validator:
    """Accept integers in ``[low, high]``."""

    @stating({"type": "integer", "minimum": low, "maximum": high})
    def check(_instance: Any, attribute: Any, value: Any) -> None:
        if value is None and optional:
            return
        if not _is_int(value) or not low <= value <= high:
            raise InvalidValue(attribute.name, value, f"an integer from {low} to {high}")

    return check


def at_least(low: int, *, optional: bool = True) -> Validator:
    """Accept integers of ``low`` or more."""

    @stating({"type": "integer", "minimum": low})
    def check(_instance: Any, attribute: Any, value: Any) -> None:
        if value is None and optional:
            return
        if not _is_int(value) or value < low:
            raise InvalidValue(attribute.name, value, f"an integer of {low} or more")

    return check


positive = at_least(1)


def number_at_least(
    low: float, high: float | None = None, *, optional: bool = True, exclusive: bool = False
) -> Validator:
    """Accept finite numbers of ``low`` or more (up to ``high``, when given)."""
    if high is not None:
        expected = f"a number from {low:g} to {high:g}"
    else:
        expected = f"a number {'above' if exclusive else 'of at least'} {low:g}"

    lowest = "exclusiveMinimum" if exclusive else "minimum"
    highest = {} if high is None else {"maximum": high}

    @stating({"type": "number", lowest: low, **highest})
    def check(_instance: Any, attribute: Any, value: Any) -> None:
        if value is None and optional:
            return
        if (
            not _is_number(value)
            or value < low
            or (exclusive and value == low)
            or (high is not None and value > high)
        ):
            raise InvalidValue(attribute.name, value, expected)

    return check


def one_of(*values: str | None) -> Validator:
    """Accept one of the given words."""
    expected = "one of " + ", ".join(str(value) for value in values if value is not None)

    @stating({"enum": [value for value in values if value is not None]})
    def check(_instance: Any, attribute: Any, value: Any) -> None:
        if value not in values:
            raise InvalidValue(attribute.name, value, expected)

    return check


def text(*, optional: bool = True, empty: bool = False) -> Validator:
    """Accept strings without NUL."""

    @stating({"type": "string", "minLength": 0 if empty else 1})
    def check(_instance: Any, attribute: Any, value: Any) -> None:
        if value is None and optional:
            return
        if not isinstance(value, str) or "\0" in value or (not value and not empty):
            raise InvalidValue(attribute.name, value, "a text without NUL characters")

    return check


def texts(*, empty: bool = False) -> Validator:
    """Accept tuples of strings without NUL, or ``None``."""

    @stating({"type": "array", "items": {"type": "string", "minLength": 0 if empty else 1}})
    def check(_instance: Any, attribute: Any, value: Any) -> None:
        if value is not None and not isinstance(value, tuple):
            raise InvalidValue(attribute.name, value, "a list of texts")
        for item in value or ():
            if not isinstance(item, str) or "\0" in item or (not item and not empty):
                raise InvalidValue(attribute.name, item, "texts without NUL characters")

    return check


def flag(*, optional: bool = True) -> Validator:
    """Accept ``True`` and ``False`` only: the text "false" is no boolean."""

    @stating({"type": "boolean"})
    def check(_instance: Any, attribute: Any, value: Any) -> None:
        if not isinstance(value, bool) and not (value is None and optional):
            raise InvalidValue(attribute.name, value, "true or false")

    return check


_NAME_EXPECTED = (
    "a name of 1 to 200 printable characters without spaces at its ends, "
    "not starting with '-' or '.', without '..', '\\' or a leading or trailing '/'"
)
_FORBIDDEN = re.compile(r"\.\.|\\|^[-./]|/$|^\s|\s$|//")


@stating(
    {
        "type": "string",
        "minLength": 1,
        "maxLength": 200,
        "not": {"pattern": _FORBIDDEN.pattern},
    }
)
def model_name(_instance: Any, attribute: Any, value: Any) -> None:
    """Accept names that are safe in a URL path, a log file's name and a shell."""
    if (
        not isinstance(value, str)
        or not 1 <= len(value) <= 200
        or not value.isprintable()
        or _FORBIDDEN.search(value)
    ):
        raise InvalidValue(attribute.name, value, _NAME_EXPECTED)
