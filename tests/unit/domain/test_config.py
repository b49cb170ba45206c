"""The intent for one server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from support.strategies import server_configs

from gglib.domain.config import DEFAULT_SPEC_DRAFT_P_MIN, LoraAdapter, ServerConfig
from gglib.domain.model import SERVER_DEFAULT_FIELDS
from gglib.errors import InvalidValue


def config(**fields: Any) -> ServerConfig:
    """Return a configuration of one model."""
    return ServerConfig(**{"model_id": 1, "model_name": "m", "model_path": "/m.gguf", **fields})


WRONG: list[tuple[str, Any]] = [
    ("model_id", -1),
    ("model_id", None),
    ("model_name", "../m"),
    ("model_path", "a\0b"),
    ("model_path", 5),
    ("base_port", 65_536),
    ("base_port", None),
    ("port", 0),
    ("port", 65_536),
    ("port", True),
    ("context_size", 0),
    ("gpu_layers", -1),
    ("jinja", "yes"),
    ("reasoning_format", "fancy"),
    ("reasoning_budget", -2),
    ("spec_draft_n_max", 0),
    ("spec_draft_p_min", 1.01),
    ("spec_draft_p_min", float("nan")),
    ("threads", 0),
    ("batch_size", 0),
    ("ubatch_size", 0),
    ("parallel", 0),
    ("seed", -2),
    ("flash_attention", True),
    ("mlock", 1),
    ("mlock", None),
    ("mmap", "false"),
    ("cache_type_k", "q9"),
    ("cache_type_v", "Q8_0"),
    ("embeddings", 0),
    ("pooling", "max"),
    ("mmproj_path", "a\0b"),
    ("mmproj_path", 5),
    ("lora_adapters", "a.gguf"),
    ("lora_adapters", ["a.gguf"]),
    ("lora_adapters", 5),
    ("slot_save_path", "\0"),
    ("cache_ram_mib", -2),
    ("environment", {"": "x"}),
    ("environment", {"A=B": "x"}),
    ("environment", {"A\0": "x"}),
    ("environment", {5: "x"}),
    ("environment", {"A": "\0"}),
    ("environment", {"A": 5}),
    ("environment", "A=B"),
    ("engine", ""),
    ("extra_args", "--verbose"),
    ("extra_args", ["a\0"]),
    ("extra_args", [5]),
    ("extra_args", 5),
]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_wrong_value_is_refused_by_its_field(field: str, value: Any) -> None:
    """Whatever the type, the error is ours and names the field."""
    with pytest.raises(InvalidValue) as caught:
        config(**{field: value})
    assert caught.value.field.partition("[")[0] == field


def test_every_field_but_inference_has_a_wrong_value_here() -> None:
    """A new field comes with a validator and its test."""
    names = {field.name for field in attrs.fields(ServerConfig)} - {"inference"}
    assert {field for field, _ in WRONG} == names


@pytest.mark.parametrize(("field", "value"), [("path", 5), ("scale", 101), ("name", "")])
def test_wrong_adapter_is_refused(field: str, value: Any) -> None:
    """An adapter is checked like a configuration."""
    with pytest.raises(InvalidValue) as caught:
        LoraAdapter(**{"path": "/a", field: value})
    assert caught.value.field == field


def test_lists_texts_and_mappings_become_frozen() -> None:
    """What was given cannot be changed behind the configuration's back."""
    given_arguments, given_environment = ["-x"], {"A": "b"}
    made = config(extra_args=given_arguments, environment=given_environment, lora_adapters=[])
    given_arguments.append("-y")
    given_environment["A"] = "c"
    assert made.extra_args == ("-x",)
    assert made.environment == {"A": "b"}
    assert made.lora_adapters == ()
    assert made.model_path == Path("/m.gguf")
    with pytest.raises(TypeError):
        made.environment["A"] = "c"  # type: ignore[index]


@given(server_configs)
def test_configuration_hashes_as_it_compares(made: ServerConfig) -> None:
    """Equal configurations have equal hashes: they can be keys."""
    assert hash(made) == hash(attrs.evolve(made))
    assert made == attrs.evolve(made)


@pytest.mark.parametrize(
    ("n_max", "p_min", "effective"),
    [
        (None, None, None),
        (None, 0.5, None),
        (2, None, DEFAULT_SPEC_DRAFT_P_MIN),
        (2, 0.5, 0.5),
        (2, 0.0, 0.0),
    ],
)
def test_draft_probability_counts_only_when_drafting(
    n_max: int | None, p_min: float | None, effective: float | None
) -> None:
    """Without drafting there is none; unsaid, it is the default."""
    made = config(spec_draft_n_max=n_max, spec_draft_p_min=p_min)
    assert made.effective_spec_draft_p_min == effective


def test_server_id_is_read_from_the_environment() -> None:
    """The identity travels where the child will have it."""
    assert config().server_id is None
    assert config(environment={"GGLIB_SERVER_ID": "x"}).server_id == "x"


def test_defaults_of_models_are_fields_of_servers() -> None:
    """A model can set nothing that a server does not have."""
    assert {field.name for field in attrs.fields(ServerConfig)} >= SERVER_DEFAULT_FIELDS
