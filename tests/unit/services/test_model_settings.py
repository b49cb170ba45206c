"""Settings of models by key: what a user writes, and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglib.domain.inference import InferenceConfig
from gglib.domain.model import ModelDefaults, Profile
from gglib.domain.serialization import from_json, to_json
from gglib.errors import InvalidRequest, InvalidValue
from gglib.services.model_settings import (
    changed_defaults,
    changed_profile,
    model_keys,
    parse_setting,
    profile_keys,
    settings_of,
)

EMPTY = ModelDefaults()


def changed(**texts: str) -> ModelDefaults:
    """Set what somebody has written; ``__`` for a point."""
    changes = {key.replace("__", "."): text for key, text in texts.items()}
    return changed_defaults(EMPTY, {key: parse_setting(key, text) for key, text in changes.items()})


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("context_size", "8_192", 8192),
        ("gpu_layers", "0", 0),
        ("jinja", "on", True),
        ("mmap", "false", False),
        ("flash_attention", "off", "off"),
        ("spec_draft_p_min", "0.5", 0.5),
        ("cache_type_k", "q8_0", "q8_0"),
        ("reasoning_format", "none", "none"),
        ("mmproj_path", "/m/eyes.gguf", "/m/eyes.gguf"),
        ("mmproj_path", "none", "none"),
        ("environment.TOKEN", "a=b c", "a=b c"),
        ("extra_args", "--flag 'two words'", ["--flag", "two words"]),
        ("extra_args", '["--flag", ""]', ["--flag", ""]),
        ("ttl_s", "300", 300.0),
        ("ttl_s", "0", 0.0),
        ("pinned", "yes", True),
        ("priority", "-5", -5),
        ("concurrency_limit", "4", 4),
        ("memory_bytes", "6GiB", 6 << 30),
        ("memory_bytes", "1.5 GB", 1_500_000_000),
        ("memory_bytes", "123", 123),
        ("engine", "stub", "stub"),
        ("replicas", "2", 2),
        ("inference.temperature", "0", 0.0),
        ("inference.top_k", "40", 40),
        ("inference.stop", "END", ["END"]),
        ("inference.stop", '["a", "b"]', ["a", "b"]),
        ("inference.logit_bias", '{"15": -1.5}', {"15": -1.5}),
        ("inference.ignore_eos", "true", True),
        ("inference.grammar", "root ::= [a-z]", "root ::= [a-z]"),
        ("set.chat_template_kwargs", '{"enable_thinking": false}', {"enable_thinking": False}),
        ("set.user", "ada", "ada"),
        ("strip", "top_k, seed", ["top_k", "seed"]),
    ],
)
def test_setting_is_read_by_its_type_and_told_as_it_is(key: str, text: str, value: Any) -> None:
    """From the command line to what is kept, and back to what is shown."""
    defaults = changed_defaults(EMPTY, {key: parse_setting(key, text)})
    assert settings_of(defaults) == {key: value}
    assert type(settings_of(defaults)[key]) is type(value)
    assert changed_defaults(defaults, {key: None}) == EMPTY


def test_relative_file_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine runs elsewhere."""
    monkeypatch.chdir(tmp_path)
    found = settings_of(changed(mmproj_path="eyes.gguf"))
    assert found == {"mmproj_path": str(tmp_path / "eyes.gguf")}


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("context_size", "1k", "context_size is '1k'; expected an integer of 1 or more"),
        ("context_size", "0", "context_size is 0; expected an integer of 1 or more"),
        ("flash_attention", "maybe", "flash_attention is 'maybe'; expected one of on, off, auto"),
        ("jinja", "maybe", "jinja is 'maybe'; expected true or false"),
        ("pinned", "2", "pinned is '2'; expected true or false"),
        ("priority", "5000", "priority is 5000; expected an integer from -1000 to 1000"),
        ("ttl_s", "nan", "ttl_s is nan; expected a number of at least -1"),
        ("memory_bytes", "lots", "memory_bytes is 'lots'; expected an integer of 1 or more"),
        ("inference.top_p", "1.5", "inference.top_p is 1.5; expected a number from 0 to 1"),
        ("inference.logit_bias", "x", "inference.logit_bias is 'x'; expected a table of numbers"),
        ("set.model", "x", "set_parameters is 'model'; expected names of parameters, but not"),
        ("environment.A=B", "x", "environment is 'A=B'; expected variable names without"),
        ("extra_args", "'", 'extra_args is "\'"; expected words as in a shell'),
        ("port", "70000", "port is 70000; expected an integer from 1 to 65535"),
    ],
)
def test_bad_value_names_the_range(key: str, text: str, message: str) -> None:
    """The key as it was written, the value, and what would be right."""
    with pytest.raises(InvalidValue) as caught:
        changed_defaults(EMPTY, {key: parse_setting(key, text)})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("contxt_size", "'context_size'"),
        ("temperature", "'inference.temperature'"),
        ("inference.temprature", "'inference.temperature'"),
        ("model_path", ""),
        ("environment", "'environment.NAME'"),
        ("set", "'set.NAME'"),
        ("context_size.x", "'context_size'"),
        ("zzz", "`gglib model set --help`"),
        ("x" * 10_000, "--help"),
    ],
)
def test_unknown_key_is_refused_with_the_nearest(key: str, hint: str) -> None:
    """Also one that is another's: a model's path is no setting."""
    with pytest.raises(InvalidRequest, match="no setting is called") as caught:
        changed_defaults(EMPTY, {key: parse_setting(key, "1")})
    assert hint in str(caught.value)
    assert len(str(caught.value)) < 250


def test_group_is_cleared_at_once() -> None:
    """``inference``, ``environment`` and ``set`` alone mean all of theirs."""
    full = changed_defaults(
        EMPTY,
        {
            "inference.top_k": 4,
            "inference.top_p": 0.5,
            "environment.A": "1",
            "environment.B": "2",
            "set.x": 1,
            "pinned": True,
        },
    )
    kept = changed_defaults(full, {"inference": None, "environment": None, "set": None})
    assert settings_of(kept) == {"pinned": True}
    assert kept.inference is None


def test_no_projector_is_not_the_same_as_none_said() -> None:
    """A server gets none, though one lies beside the model."""
    assert changed(mmproj_path="none").server == {"mmproj_path": None}
    assert EMPTY.server == {}


@pytest.mark.parametrize(
    ("text", "kept"),
    [("box", "box"), ("box, attic", ["box", "attic"]), ('["box", "attic"]', ["box", "attic"])],
)
def test_runners_are_a_name_or_names_with_commas_between_them(text: str, kept: Any) -> None:
    """Or JSON, as for other lists."""
    defaults = changed_defaults(ModelDefaults(), {"runner": parse_setting("runner", text)})
    assert settings_of(defaults) == {"runner": kept}
    assert from_json(to_json(defaults), ModelDefaults) == defaults


def test_settings_that_exclude_each_other_are_refused() -> None:
    """As in a settings file."""
    with pytest.raises(InvalidValue, match="replicas"):
        changed(port="9000", replicas="2")


def test_profile_has_the_keys_that_requests_have() -> None:
    """And no others."""
    profile = changed_profile(
        Profile(name="cold"), {"inference.temperature": 0.0, "set.x": [1], "strip": ("seed",)}
    )
    assert profile == Profile(
        name="cold",
        inference=InferenceConfig(temperature=0.0),
        set_parameters={"x": [1]},
        strip_parameters=("seed",),
    )
    assert changed_profile(profile, dict.fromkeys(("inference", "set", "strip"))) == Profile(
        name="cold"
    )
    for key in ("context_size", "environment.A", "pinned"):
        with pytest.raises(InvalidRequest, match="no setting is called"):
            changed_profile(profile, {key: 1})


def test_every_key_that_is_told_is_a_key() -> None:
    """What help lists can be set."""
    for key in (*model_keys(), *profile_keys()):
        assert changed_defaults(EMPTY, {key: None}) == EMPTY


@given(st.sampled_from(model_keys()), st.text(max_size=20))
def test_any_text_is_taken_or_refused_by_name(key: str, text: str) -> None:
    """No text is an error of Python's; what is taken is told again."""
    try:
        defaults = changed_defaults(EMPTY, {key: parse_setting(key, text)})
    except (InvalidRequest, InvalidValue):
        return
    assert set(settings_of(defaults)) <= {key}
