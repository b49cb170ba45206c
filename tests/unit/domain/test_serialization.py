"""Domain values to JSON and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from support.strategies import (
    inference_configs,
    models,
    process_handles,
    server_configs,
    server_healths,
    server_records,
)

from gglib.domain.config import ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.domain.health import ServerHealth
from gglib.domain.inference import InferenceConfig
from gglib.domain.model import Capability, Model, ModelFacts
from gglib.domain.ownership import Owner, OwnerKind, ServerRecord
from gglib.domain.serialization import from_json, structure, to_json, unstructure
from gglib.domain.state import ServerState
from gglib.errors import InvalidValue

# Building whole records is slow where two cores are shared; that says nothing of the code.
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def check_round_trip(value: Any) -> None:
    """Check that ``value`` survives JSON, in every type."""
    text = to_json(value)
    assert text.isascii()
    assert "\n" not in text
    back = from_json(text, type(value))
    assert back == value
    assert to_json(back) == text


@relaxed
@given(server_configs)
def test_server_config_survives_json(value: ServerConfig) -> None:
    """What was intended is what is read back."""
    check_round_trip(value)


@given(inference_configs)
def test_inference_config_survives_json(value: InferenceConfig) -> None:
    """Sampling parameters come back as they were."""
    check_round_trip(value)


@given(process_handles)
def test_process_handle_survives_json(value: ProcessHandle) -> None:
    """An identity that changes on disk is no identity."""
    check_round_trip(value)


@given(server_healths)
def test_server_health_survives_json(value: ServerHealth) -> None:
    """Health comes back as it was."""
    check_round_trip(value)


@relaxed
@given(models)
def test_model_survives_json(value: Model) -> None:
    """A model comes back with its facts, profiles and defaults."""
    check_round_trip(value)


@relaxed
@given(server_records)
def test_server_record_survives_json(value: ServerRecord) -> None:
    """A registry row comes back whole; its key too, though it is never shown."""
    text = to_json(value)
    back = from_json(text, ServerRecord)
    assert back == value
    assert back.api_key == value.api_key


def test_path_that_is_not_unicode_survives_json() -> None:
    """File names are bytes: undecodable ones are kept."""
    path = Path("/m/\udcff.gguf")
    value = ServerConfig(model_id=1, model_name="m", model_path=path)
    assert from_json(to_json(value).encode(), ServerConfig).model_path == path


def test_defaults_are_left_out() -> None:
    """A row says what was said, so that a better default reaches old rows."""
    value = ServerConfig(model_id=1, model_name="m", model_path=Path("/m"))
    assert unstructure(value) == {"model_id": 1, "model_name": "m", "model_path": "/m"}


def test_capabilities_are_sorted() -> None:
    """The same facts are the same text: sets have no order of their own."""
    facts = ModelFacts(capabilities=frozenset(Capability))
    assert json.loads(to_json(facts))["capabilities"] == sorted(Capability)


PLAIN = {"model_id": 1, "model_name": "m", "model_path": "/m"}


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"modle_id": 1}, "modle_id"),
        ({"model_id": 1.5}, "expected int, not float"),
        ({"model_id": "1"}, "expected int, not str"),
        ({"model_id": True}, "expected int, not bool"),
        ({"model_name": 5}, "expected str, not int"),
        ({"model_path": 5}, "int"),
        ({"mlock": "false"}, "expected bool, not str"),
        ({"spec_draft_p_min": "0.5"}, "expected a number, not str"),
        ({"spec_draft_p_min": 10**400}, "too large"),
        ({"extra_args": "--x"}, "expected list, not str"),
        ({"extra_args": [5]}, "expected str, not int"),
        ({"environment": {"A": 5}}, "expected str, not int"),
        ({"environment": []}, "list"),
        ({"inference": 7}, "int"),
        ({"lora_adapters": [{}]}, "lacks 'path'"),
    ],
)
def test_plain_data_of_a_wrong_shape_is_refused(change: dict[str, Any], part: str) -> None:
    """Nothing is converted on the way: "false" is not true, 1.5 is not 1."""
    with pytest.raises(ValueError, match="no valid ServerConfig") as caught:
        structure({**PLAIN, **change}, ServerConfig)
    assert part in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "5", '"x"', "[" * 100_000, b"\xff"])
def test_text_that_is_no_object_is_refused(text: str | bytes) -> None:
    """Damaged rows end in a ``ValueError``, whatever the damage."""
    with pytest.raises(ValueError):  # noqa: PT011 - the promise is the type
        from_json(text, ServerConfig)


def test_missing_field_is_named() -> None:
    """What is not there is said."""
    with pytest.raises(ValueError, match="no valid ServerConfig: it lacks 'model_name'"):
        from_json('{"model_id": 1}', ServerConfig)


def test_value_out_of_its_range_is_refused_by_its_field() -> None:
    """Data from outside is validated like any other."""
    with pytest.raises(InvalidValue) as caught:
        structure({**PLAIN, "port": 70_000}, ServerConfig)
    assert (caught.value.field, caught.value.value) == ("port", 70_000)


def test_words_become_members_of_their_enumeration() -> None:
    """A state that is read is a state, and an unknown one is refused."""
    plain = {"kind": "gateway", "pid": 1, "process_started_at": 1, "node": "n"}
    owner = structure(plain, Owner)
    assert owner.kind is OwnerKind.GATEWAY
    assert isinstance(owner.process_started_at, float)
    with pytest.raises(ValueError, match="somebody"):
        structure({**plain, "kind": "somebody"}, Owner)


def test_api_key_is_kept_out_of_representations() -> None:
    """A logged record shows no key."""
    record = ServerRecord(
        server_id="s",
        owner=Owner(kind=OwnerKind.GATEWAY, pid=1, process_started_at=1.0, node="n"),
        config=ServerConfig(model_id=1, model_name="m", model_path=Path("/m")),
        engine="e",
        runner="r",
        state=ServerState.STARTING,
        created_at=1.0,
        api_key="hush",
    )
    assert "hush" not in repr(record)
    assert attrs.evolve(record, api_key=None) != record
