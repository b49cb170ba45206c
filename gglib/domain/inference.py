"""Sampling parameters, and the one rule by which layers of them are merged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from types import MappingProxyType
from typing import Any

import attrs

from gglib.domain.validation import (
    at_least,
    flag,
    number_at_least,
    one_of,
    positive,
    stating,
    text,
    texts,
)
from gglib.errors import InvalidValue

__all__ = ["InferenceConfig", "Overlay", "overlay"]


def _frozen_mapping(value: Mapping[str, float] | None) -> Mapping[str, float] | None:
    return MappingProxyType(dict(value)) if isinstance(value, Mapping) else value


def _tuple(value: Iterable[str] | None) -> tuple[str, ...] | None:
    if isinstance(value, str):
        return (value,)
    # What is no list is left as it is: the validator names the field.
    return tuple(value) if isinstance(value, list) else value  # type: ignore[return-value]


#: One text stands for a list of it.
_several_texts = stating(
    {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
)(texts(empty=True))


@stating({"type": "object", "additionalProperties": {"type": "number"}})
def _biases(_instance: Any, attribute: Any, value: Any) -> None:
    if value is not None and not isinstance(value, Mapping):
        raise InvalidValue(attribute.name, value, "a table of numbers")
    for token, bias in (value or {}).items():
        if not isinstance(token, str):
            raise InvalidValue(attribute.name, token, "token numbers or texts, as texts")
        if isinstance(bias, bool) or not isinstance(bias, (int, float)) or not isfinite(bias):
            raise InvalidValue(f"{attribute.name}[{token}]", bias, "a number")


@attrs.frozen(kw_only=True)
class InferenceConfig:
    """Every sampling parameter a llama-server request may carry; ``None`` = not said.

    Source: llama.cpp, tools/server/README.md (POST /completion and
    POST /v1/chat/completions), build 11434.
    """

    temperature: float | None = attrs.field(default=None, validator=number_at_least(0))
    dynatemp_range: float | None = attrs.field(default=None, validator=number_at_least(0))
    dynatemp_exponent: float | None = attrs.field(default=None, validator=number_at_least(0))
    top_k: int | None = attrs.field(default=None, validator=at_least(0))
    top_p: float | None = attrs.field(default=None, validator=number_at_least(0, 1))
    min_p: float | None = attrs.field(default=None, validator=number_at_least(0, 1))
    top_n_sigma: float | None = attrs.field(default=None, validator=number_at_least(-1))
    xtc_probability: float | None = attrs.field(default=None, validator=number_at_least(0, 1))
    xtc_threshold: float | None = attrs.field(default=None, validator=number_at_least(0, 1))
    typical_p: float | None = attrs.field(default=None, validator=number_at_least(0, 1))
    adaptive_target: float | None = attrs.field(default=None, validator=number_at_least(-1, 1))
    adaptive_decay: float | None = attrs.field(default=None, validator=number_at_least(0, 1))
    repeat_last_n: int | None = attrs.field(default=None, validator=at_least(-1))
    repeat_penalty: float | None = attrs.field(default=None, validator=number_at_least(0))
    presence_penalty: float | None = attrs.field(default=None, validator=number_at_least(-2, 2))
    frequency_penalty: float | None = attrs.field(default=None, validator=number_at_least(-2, 2))
    dry_multiplier: float | None = attrs.field(default=None, validator=number_at_least(0))
    dry_base: float | None = attrs.field(default=None, validator=number_at_least(0))
    dry_allowed_length: int | None = attrs.field(default=None, validator=at_least(0))
    dry_penalty_last_n: int | None = attrs.field(default=None, validator=at_least(-1))
    dry_sequence_breakers: tuple[str, ...] | None = attrs.field(
        default=None, converter=_tuple, validator=_several_texts
    )
    mirostat: int | None = attrs.field(default=None, validator=at_least(0))
    mirostat_tau: float | None = attrs.field(default=None, validator=number_at_least(0))
    mirostat_eta: float | None = attrs.field(default=None, validator=number_at_least(0))
    seed: int | None = attrs.field(default=None, validator=at_least(-1))
    max_tokens: int | None = attrs.field(default=None, validator=at_least(-1))
    n_keep: int | None = attrs.field(default=None, validator=at_least(-1))
    n_probs: int | None = attrs.field(default=None, validator=at_least(0))
    min_keep: int | None = attrs.field(default=None, validator=at_least(0))
    n_indent: int | None = attrs.field(default=None, validator=at_least(0))
    t_max_predict_ms: int | None = attrs.field(default=None, validator=positive)
    stop: tuple[str, ...] | None = attrs.field(
        default=None, converter=_tuple, validator=_several_texts
    )
    samplers: tuple[str, ...] | None = attrs.field(
        default=None, converter=_tuple, validator=_several_texts
    )
    logit_bias: Mapping[str, float] | None = attrs.field(
        default=None, converter=_frozen_mapping, validator=_biases, hash=False
    )
    grammar: str | None = attrs.field(default=None, validator=text(empty=True))
    ignore_eos: bool | None = attrs.field(default=None, validator=flag())
    cache_prompt: bool | None = attrs.field(default=None, validator=flag())
    reasoning_format: str | None = attrs.field(
        default=None, validator=one_of(None, "none", "deepseek", "deepseek-legacy", "auto")
    )

    def set_fields(self) -> dict[str, Any]:
        """Return the parameters that are said, by name."""
        return {
            field.name: value
            for field in attrs.fields(type(self))
            if (value := getattr(self, field.name)) is not None
        }


@attrs.frozen
class Overlay:
    """A merged configuration, and which layer each value came from."""

    config: InferenceConfig
    sources: Mapping[str, str]


def overlay(*layers: tuple[str, InferenceConfig | None]) -> Overlay:
    """Merge ``(source, config)`` layers; the first that says a parameter wins.

    Callers pass them strongest first: request, profile, model, global.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, config in layers:
        if config is None:
            continue
        for name, value in config.set_fields().items():
            if name not in values:
                values[name] = value
                sources[name] = source
    return Overlay(InferenceConfig(**values), MappingProxyType(sources))
