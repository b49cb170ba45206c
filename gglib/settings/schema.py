"""The JSON Schema of a settings file, made from what the settings themselves check."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

import attrs

from gglib.domain.config import ServerConfig
from gglib.domain.inference import InferenceConfig
from gglib.domain.model import SERVER_DEFAULT_FIELDS, Model, ModelDefaults
from gglib.domain.validation import schema_of
from gglib.settings.models import MODEL_DEFAULT_KEYS
from gglib.settings.telemetry import TelemetrySettings
from gglib.settings.values import (
    GatewaySettings,
    PoolSettings,
    RoutingSettings,
    ServingSettings,
)

__all__ = ["settings_schema"]

_Schema = dict[str, Any]

_MODEL_NAME: _Schema = dict(schema_of(attrs.fields(Model).name.validator))
_NAMES: _Schema = {"type": "array", "minItems": 1, "items": {"type": "string"}}
_GROUP: _Schema = {
    "type": "object",
    "properties": {
        "members": _NAMES,
        **{name: {"type": "boolean"} for name in ("swap", "exclusive", "persistent")},
    },
    "required": ["members"],
    "additionalProperties": False,
}
_MATRIX: _Schema = {
    "type": "object",
    "properties": {
        "sets": {"type": "array", "items": _NAMES},
        "costs": {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}},
    },
    "additionalProperties": False,
}


def settings_schema() -> _Schema:
    """Return the schema, of JSON Schema's draft 7, which editors know.

    What a valid file has is accepted. Rules between several keys, and what is an adapter's
    own, are not in it: ``gglib config check`` knows those.
    """
    routing = _section(RoutingSettings)
    routing["properties"]["groups"]["additionalProperties"] = _GROUP
    routing["properties"]["matrix"].update(_MATRIX)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "gglib.toml",
        "type": "object",
        "properties": {
            "gateway": _section(GatewaySettings),
            "serving": _section(ServingSettings),
            "routing": routing,
            "pool": _section(PoolSettings),
            "telemetry": _section(TelemetrySettings),
            "inference": _section(InferenceConfig),
            "engines": _adapters("An engine: a command, or settings of an installed one."),
            "models": {**_named(_model()), "propertyNames": _MODEL_NAME},
            "runners": _adapters("Where servers run."),
            "sources": _adapters("Where models come from, beside files."),
        },
        "additionalProperties": False,
    }


def _section(kind: type[attrs.AttrsInstance]) -> _Schema:
    """Return the schema of a section whose keys are the fields of ``kind``."""
    said = _docstrings(kind)
    properties = {}
    for field in attrs.fields(kind):
        schema = _field(field)
        if isinstance(field.default, str | int | float):
            schema["default"] = field.default
        if field.name in said:
            schema["description"] = said[field.name]
        properties[field.name] = schema
    return {
        "description": (inspect.getdoc(kind) or "").partition("\n")[0],
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _model() -> _Schema:
    said = {**_docstrings(ServerConfig), **_docstrings(ModelDefaults)}
    server, defaults = attrs.fields_dict(ServerConfig), attrs.fields_dict(ModelDefaults)
    fields = {
        **{name: defaults[name] for name in sorted(MODEL_DEFAULT_KEYS)},
        **{name: server[name] for name in sorted(SERVER_DEFAULT_FIELDS)},
    }
    profile = {"type": "object", "properties": _requests(), "additionalProperties": False}
    properties: dict[str, _Schema] = {
        "path": {"type": "string", "minLength": 1, "description": "The model's file or folder."},
        "aliases": {"type": "array", "items": _MODEL_NAME, "description": "Other names."},
        **_requests(),
        "profiles": {
            "type": "object",
            "propertyNames": _MODEL_NAME,
            "additionalProperties": profile,
        },
    }
    for key, field in fields.items():
        properties[key] = _field(field)
        if key in said:
            properties[key]["description"] = said[key]
    return {
        "description": "A model.",
        "type": "object",
        "properties": properties,
        "required": ["path"],
        "additionalProperties": False,
    }


def _requests() -> dict[str, _Schema]:
    """Return the schemas of what changes requests, of a model or a profile."""
    fields = attrs.fields(ModelDefaults)
    return {
        "inference": _section(InferenceConfig),
        "set": _field(fields.set_parameters),
        "strip": _field(fields.strip_parameters),
    }


def _adapters(description: str) -> _Schema:
    section = {
        "description": description,
        "type": "object",
        "properties": {"kind": {"type": "string", "minLength": 1}},
    }
    return _named(section)


def _named(schema: _Schema) -> _Schema:
    return {"type": "object", "additionalProperties": schema}


def _field(field: attrs.Attribute[Any]) -> _Schema:
    return dict(schema_of(field.validator))


def _docstrings(kind: type[attrs.AttrsInstance]) -> dict[str, str]:
    """Return what stands under the fields of a class, by name: Python does not keep it."""
    (made,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(made, ast.ClassDef)
    found: dict[str, str] = {}
    for statement, following in zip(made.body, made.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            match following:
                case ast.Expr(value=ast.Constant(value=str() as text)):
                    found[statement.target.id] = " ".join(text.split())
    return found
