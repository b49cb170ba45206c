"""The rule that every engine's settings share: no key is ignored."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from gglib.errors import ConfigurationError

__all__ = ["optional_text", "refuse_unknown"]


def refuse_unknown(engine: str, settings: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise ``ConfigurationError`` for a key that is not ``known``, naming the nearest one."""
    for key in settings:
        if key in known:
            continue
        if not known:
            raise ConfigurationError(f"[engines.{engine}] has no settings, so not '{key}'")
        from difflib import get_close_matches

        nearest = get_close_matches(key, known, n=1, cutoff=0.5)
        remedy = (
            f"did you mean '{nearest[0]}'?"
            if nearest
            else f"known keys: {', '.join(sorted(known))}"
        )
        raise ConfigurationError(f"[engines.{engine}] has no key '{key}'; {remedy}")


def optional_text(engine: str, settings: Mapping[str, Any], key: str) -> str | None:
    """Return the text under ``key``; ``ConfigurationError`` if it is something else."""
    value = settings.get(key)
    if value is not None and (not isinstance(value, str) or not value or "\0" in value):
        raise ConfigurationError(f"[engines.{engine}] {key} is {value!r}; expected a text")
    return value
