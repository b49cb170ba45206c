"""Sampling parameters, and the law by which layers of them merge."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import inference_configs

from gglib.domain.inference import InferenceConfig, overlay
from gglib.errors import InvalidValue

EMPTY = InferenceConfig()
layers = st.none() | inference_configs


def merged(*configs: InferenceConfig | None) -> InferenceConfig:
    """Return the merge of ``configs``, the strongest first."""
    return overlay(*((str(number), config) for number, config in enumerate(configs))).config


@given(inference_configs)
def test_empty_layers_change_nothing(config: InferenceConfig) -> None:
    """Identity: nothing said, above or below, is nothing done."""
    assert merged(config) == config
    assert merged(None, EMPTY, config, EMPTY, None) == config


@given(layers, layers, layers)
def test_grouping_of_layers_does_not_matter(
    a: InferenceConfig | None, b: InferenceConfig | None, c: InferenceConfig | None
) -> None:
    """Associativity: layers can be merged in any grouping."""
    assert merged(a, merged(b, c)) == merged(merged(a, b), c) == merged(a, b, c)


@given(layers, layers)
def test_same_layer_again_changes_nothing(
    a: InferenceConfig | None, b: InferenceConfig | None
) -> None:
    """Idempotence: saying it twice is saying it once."""
    assert merged(a, b, a, b) == merged(a, b)


@given(st.lists(layers, max_size=4))
def test_first_layer_that_says_a_parameter_wins_and_is_its_source(
    configs: list[InferenceConfig | None],
) -> None:
    """Each value, and each source, is that of the first layer with it; nothing else is there."""
    found = overlay(*((f"layer {number}", config) for number, config in enumerate(configs)))
    for field in attrs.fields(InferenceConfig):
        saying = [
            (f"layer {number}", getattr(config, field.name))
            for number, config in enumerate(configs)
            if config is not None and getattr(config, field.name) is not None
        ]
        source, value = saying[0] if saying else (None, None)
        assert getattr(found.config, field.name) == value
        assert found.sources.get(field.name) == source
    assert set(found.sources) == set(found.config.set_fields())


def test_no_layers_say_nothing() -> None:
    """The merge of nothing is the empty configuration."""
    assert overlay().config == EMPTY
    assert dict(overlay().sources) == {}


@pytest.mark.parametrize("value", [0, False, "", (), {}])
def test_value_that_is_falsy_is_said(value: object) -> None:
    """Zero, no and nothing are values: only ``None`` is silence."""
    field = {
        int: "top_k", bool: "ignore_eos", str: "grammar", tuple: "stop", dict: "logit_bias"
    }[type(value)]  # fmt: skip
    strong = InferenceConfig(**{field: value})  # type: ignore[arg-type]
    weak: dict[str, Any] = {
        "top_k": 5, "ignore_eos": True, "grammar": "g", "stop": ("x",), "logit_bias": {"1": 1.0}
    }  # fmt: skip
    assert getattr(merged(strong, InferenceConfig(**{field: weak[field]})), field) == value


def test_single_text_is_a_list_of_one() -> None:
    """``stop`` may be a text in a request."""
    assert InferenceConfig(stop="END").stop == ("END",)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("inf")),
        ("top_p", 1.5),
        ("top_k", 0.5),
        ("mirostat", -1),
        ("seed", -2),
        ("t_max_predict_ms", 0),
        ("stop", 5),
        ("stop", [5]),
        ("samplers", {"a": 1}),
        ("dry_sequence_breakers", ["a\0"]),
        ("logit_bias", 5),
        ("logit_bias", {5: 1.0}),
        ("logit_bias", {"5": "x"}),
        ("logit_bias", {"5": True}),
        ("logit_bias", {"5": float("nan")}),
        ("grammar", 5),
        ("ignore_eos", "no"),
        ("cache_prompt", 1),
        ("reasoning_format", "x"),
    ],
)
def test_wrong_parameter_is_refused_by_its_field(field: str, value: Any) -> None:
    """Whatever the type, the error is ours and names the field."""
    with pytest.raises(InvalidValue) as caught:
        InferenceConfig(**{field: value})
    assert caught.value.field.partition("[")[0] == field


@given(inference_configs)
def test_parameters_hash_as_they_compare(config: InferenceConfig) -> None:
    """Equal parameters have equal hashes."""
    assert hash(config) == hash(attrs.evolve(config))
