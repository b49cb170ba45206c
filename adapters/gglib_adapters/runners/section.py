"""A runner's section of the configuration, as an attrs class."""

from __future__ import annotations

import difflib
from typing import Any, TypeVar

import attrs

from gglib.errors import ConfigurationError, InvalidValue
from gglib.ports.context import AdapterContext

__all__ = ["read_section"]

S = TypeVar("S")


def read_section(cls: type[S], context: AdapterContext) -> S:
    """Return the validated settings of ``context`` as an attrs class with those keys.

    Raises:
        ConfigurationError: a key is unknown (with the nearest known one) or a value wrong.
    """
    source = f"[runners.{context.name}]"
    fields: tuple[Any, ...] = attrs.fields(cls)  # type: ignore[arg-type]
    known = [field.name for field in fields]
    for key in context.settings:
        if key in known:
            continue
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
        hint = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(known)}"
        raise ConfigurationError(f"unknown key '{key}'; {hint}", source)
    try:
        return cls(**context.settings)
    except InvalidValue as error:
        raise ConfigurationError(str(error), source) from error
