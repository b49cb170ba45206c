"""Sampling parameters as they are typed: KEY=VALUE."""

from __future__ import annotations

import json
from difflib import get_close_matches

import attrs

from gglib.domain.inference import InferenceConfig
from gglib.errors import InvalidValue

__all__ = ["with_parameter"]


def with_parameter(inference: InferenceConfig, said: str) -> InferenceConfig:
    """Return ``inference`` with one parameter changed: ``KEY=VALUE``, or ``KEY=`` to unset it.

    Raises:
        InvalidValue: there is no such parameter, or the value is none of its values.
    """
    key, equals, text = (part.strip() for part in said.partition("="))
    known = attrs.fields_dict(InferenceConfig)
    if not equals or key not in known:
        near = get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "temperature=0.2, for one"
        raise InvalidValue("parameter", said, f"KEY=VALUE; {hint}")
    try:
        value = json.loads(text) if text else None
    except ValueError:
        value = text
    return attrs.evolve(inference, **{key: value})
