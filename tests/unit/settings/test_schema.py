"""The schema of the settings file: it accepts what is accepted, key by key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import jsonschema
import pytest

from gglib.domain.inference import InferenceConfig
from gglib.domain.model import SERVER_DEFAULT_FIELDS
from gglib.errors import ConfigurationError
from gglib.settings import (
    GatewaySettings,
    PoolSettings,
    RoutingSettings,
    ServingSettings,
    load_settings,
)
from gglib.settings.models import MODEL_DEFAULT_KEYS
from gglib.settings.schema import settings_schema

SCHEMA = settings_schema()
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)
#: What a TOML file may hold, at the edges of ranges. A whole float is an integer to JSON only.
VALUES = [
    *(-1001, -2, -1, 0, 1, 2, 1000, 1001, 1023, 1024, 65_535, 65_536, 2**30),
    *(-0.5, 0.5, 1.5, True, False, "", "x", "on", "off", "rank", "q8_0", "count", "adopt"),
    *("a b", "deepseek", [], ["x"], [""], ["a b"], [1], {}, {"x": 1}, {"X": "1"}),
    *({"model": "m"}, ["stream"], {"top_k": 1}, {"top_k": -1}, {"p": {"set": {"x": 1}}}),
    *({"p": {"strp": []}}, {"p": {"inference": {"seed": 1}}}, {".p": {}}),
]
#: Whose rules are about more than one key.
TOGETHER = {
    *("replicas", "groups", "matrix", "budgets", "planner", "min_size"),
    *("tls_key", "tls_key_password_file"),
}


def keys() -> Iterator[tuple[str, str]]:
    """Yield the section and name of every key whose values are gglib's own."""
    for section, kind in (
        ("gateway", GatewaySettings),
        ("serving", ServingSettings),
        ("routing", RoutingSettings),
        ("pool", PoolSettings),
        ("inference", InferenceConfig),
    ):
        yield from ((section, field.name) for field in attrs.fields(kind))
    names = {"path", "aliases", "set", "strip", "inference", "profiles"}
    names |= MODEL_DEFAULT_KEYS | SERVER_DEFAULT_FIELDS
    yield from (("models", name) for name in sorted(names))


def written(value: Any) -> str:
    """Return a value as TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {written(item)}' for key, item in value.items()) + "}"
    return json.dumps(value)


def test_schema_is_one() -> None:
    """By the standard's own schema, and as JSON."""
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


@pytest.mark.parametrize(("section", "key"), [each for each in keys() if each[1] not in TOGETHER])
def test_schema_and_gglib_accept_the_same_values(section: str, key: str, tmp_path: Path) -> None:
    """Of every key: each value that a file could hold."""
    accepted = 0
    for value in VALUES:
        table = {"path": "m.gguf", key: value} if section == "models" else {key: value}
        document = {section: {"m": table}} if section == "models" else {section: table}
        lines = "\n".join(f"{name} = {written(item)}" for name, item in table.items())
        header = "models.m" if section == "models" else section
        file = tmp_path / "gglib.toml"
        file.write_text(f"[{header}]\n{lines}\n")
        try:
            load_settings(flags={"data_dir": tmp_path}, environ={})
        except ConfigurationError as error:
            taken, told = False, str(error)
        else:
            taken, told = True, ""
            accepted += 1
        assert VALIDATOR.is_valid(document) == taken, (value, told)
    assert accepted, "no value was right: nothing was shown"


@pytest.mark.parametrize(
    "document",
    [
        {"gatewya": {}},
        {"gateway": {"prot": 1}},
        {"models": {"m": {"path": "m", "ctx": 1}}},
        {"models": {"m": {"engine": "x"}}},
        {"routing": {"groups": {"g": {"swap": True}}}},
        {"routing": {"groups": {"g": {"members": ["a"], "swp": True}}}},
        {"routing": {"matrix": {"sets": [["a"]], "costs": {"a": -1}}}},
        {"routing": {"budgets": {"cpu": -1}}},
    ],
)
def test_schema_knows_no_other_keys(document: dict[str, Any]) -> None:
    """An editor marks what gglib would refuse."""
    assert not VALIDATOR.is_valid(document)


def test_keys_that_say_something_of_themselves_say_it_to_editors() -> None:
    """Their docstrings."""
    port = SCHEMA["properties"]["gateway"]["properties"]["port"]
    assert port["description"] == "0 lets the system choose."
    assert port["default"] == 8080
