"""Domain values, looked at from outside."""

from __future__ import annotations

from typing import Any

import attrs

__all__ = ["fields_at_default"]


def fields_at_default(value: Any) -> list[str]:
    """Return the names of the fields that nobody set, by what they are."""
    return [
        f"{type(value).__name__}.{field.name}"
        for field in attrs.fields(type(value))
        if field.default is not attrs.NOTHING and getattr(value, field.name) == _default(field)
    ]


def _default(field: Any) -> Any:
    is_factory = hasattr(field.default, "factory")
    default = field.default.factory() if is_factory else field.default
    return field.converter(default) if field.converter else default
