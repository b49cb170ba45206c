"""What models and profiles make requests say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglib.domain.inference import InferenceConfig
from gglib.domain.model import Model, ModelDefaults, Profile
from gglib.domain.names import ResolvedName
from gglib.errors import InvalidValue
from gglib.gateway.relay.body import with_model
from gglib.gateway.relay.body_rules import RuleBook

CHAT = b"/v1/chat/completions"
FAST = Profile(
    name="fast",
    inference=InferenceConfig(temperature=0.5, max_tokens=9),
    set_parameters={"x": "profile"},
    strip_parameters=("seed",),
)


def model(**defaults: Any) -> Model:
    """Return a model with a profile."""
    return Model(
        id=1,
        name="m",
        paths=(Path("/m"),),
        size_bytes=1,
        profiles=(FAST,),
        defaults=ModelDefaults(**defaults),
    )


def changed(
    body: str,
    resolved: ResolvedName,
    everyone: InferenceConfig | None = None,
    target: bytes = CHAT,
) -> str:
    """Return what becomes of a body."""
    rules = RuleBook(everyone).rules_for(resolved, target)
    return with_model(body.encode(), "m", rules).decode()


def test_model_that_says_nothing_changes_nothing() -> None:
    """There are no rules, which is what costs nothing."""
    assert RuleBook().rules_for(ResolvedName(model()), CHAT) is None
    assert RuleBook(InferenceConfig()).rules_for(ResolvedName(model()), CHAT) is None


def test_request_wins_over_profile_over_model_over_everyone() -> None:
    """Each fills what the stronger ones leave unsaid."""
    of_model = model(inference=InferenceConfig(temperature=0.2, top_k=7, top_p=0.9))
    everyone = InferenceConfig(top_p=0.1, min_p=0.3, seed=4)
    body = '{"model":"m:fast","top_k":1}'
    told = json.loads(changed(body, ResolvedName(of_model, FAST), everyone))
    assert told == {
        "model": "m",
        "top_k": 1,
        "temperature": 0.5,
        "max_tokens": 9,
        "top_p": 0.9,
        "min_p": 0.3,
        "seed": 4,
        "x": "profile",
    }


def test_what_is_set_wins_over_the_request_and_what_is_stripped_is_gone() -> None:
    """A profile's over its model's."""
    of_model = model(set_parameters={"x": 1, "y": {"z": [1]}}, strip_parameters=("logprobs",))
    body = '{"model":"m","x":0,"logprobs":true,"seed":3,"kept":1.50}'
    assert json.loads(changed(body, ResolvedName(of_model))) == {
        "model": "m",
        "x": 1,
        "seed": 3,
        "kept": 1.5,
        "y": {"z": [1]},
    }
    with_profile = changed(body, ResolvedName(of_model, FAST))
    assert json.loads(with_profile)["x"] == "profile"
    assert "seed" not in json.loads(with_profile)
    assert '"kept":1.50' in with_profile


@pytest.mark.parametrize("said", ["max_tokens", "max_completion_tokens", "n_predict"])
def test_length_that_is_said_in_other_words_is_said(said: str) -> None:
    """No second limit is put beside it."""
    told = json.loads(changed(f'{{"model":"m","{said}":3}}', ResolvedName(model(), FAST)))
    assert {key: told[key] for key in told if "max" in key or "predict" in key} == {said: 3}


@pytest.mark.parametrize("target", [b"/v1/embeddings", b"/tokenize", b"/v1/rerank?a=b"])
def test_what_asks_for_no_text_is_left_alone(target: bytes) -> None:
    """It has no such parameters."""
    assert RuleBook().rules_for(ResolvedName(model(), FAST), target) is None
    assert RuleBook().rules_for(ResolvedName(model(), FAST), CHAT + b"?a=b") is not None


def test_rules_of_a_changed_model_are_made_anew() -> None:
    """The book knows models, not their numbers."""
    book = RuleBook()
    assert book.rules_for(ResolvedName(model()), CHAT) is None
    assert book.rules_for(ResolvedName(model(strip_parameters=("a",))), CHAT) is not None


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(["a", "b", "c", "d"])


@given(
    said=st.dictionaries(names, values),
    forced=st.dictionaries(names, values),
    stripped=st.lists(names, max_size=3),
)
def test_body_is_what_it_said_less_the_stripped_and_then_the_set(
    said: dict[str, Any], forced: dict[str, Any], stripped: list[str]
) -> None:
    """Whatever they are."""
    of_model = model(set_parameters=forced, strip_parameters=tuple(stripped))
    told = json.loads(changed(json.dumps({"model": "m", **said}), ResolvedName(of_model)))
    left = {key: value for key, value in said.items() if key not in stripped}
    assert told == {"model": "m", **left, **forced}


@pytest.mark.parametrize(
    "wrong",
    [
        {"set_parameters": {"model": "x"}},
        {"set_parameters": {"stream": True}},
        {"set_parameters": {"a": float("nan")}},
        {"set_parameters": {"a": object()}},
        {"set_parameters": [1]},
        {"strip_parameters": "top_k"},
        {"strip_parameters": ["model"]},
        {"strip_parameters": [""]},
    ],
)
def test_what_a_request_alone_may_say_cannot_be_changed(wrong: dict[str, Any]) -> None:
    """Nor can what is no name, or no JSON."""
    with pytest.raises(InvalidValue):
        ModelDefaults(**wrong)
