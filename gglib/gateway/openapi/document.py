"""The OpenAPI document: everything that this gateway answers, and how."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from gglib import __version__
from gglib.gateway.answers import ErrorAnswer
from gglib.gateway.ollama.answers import OllamaError
from gglib.gateway.openapi import ollama, own, pulling, relayed
from gglib.gateway.openapi.operations import Access, Body, Operation, Reply, Shape

__all__ = ["OPERATIONS", "document", "document_bytes"]

OPERATIONS: tuple[Operation, ...] = (
    *relayed.OPERATIONS,
    *ollama.OPERATIONS,
    *own.OPERATIONS,
    *pulling.OPERATIONS,
)

_ABOUT = """\
gglib serves language models: it starts the engine of the model that a request names, and takes \
turns with memory.

Every answer carries `x-request-id`: yours, if you sent one. Errors are OpenAI's, \
`{"error": {"message", "type", "param", "code"}}`; under `/api` Ollama's, `{"error": "message"}`. \
A method that a route does not have is answered with 405 and `allow`.
"""
_TAGS = {
    "Inference": "Relayed to the model's engine, whose answer comes back as it is.",
    "Ollama": "Ollama's API, translated.",
    "Models": "What there is, and what is in memory.",
    "Gateway": "The gateway itself.",
    "Administration": "With the gateway's local token.",
}
#: What any request may be refused with.
_ANY = {
    400: "The request is malformed",
    401: "No key, or an unknown one (`invalid_api_key`)",
    403: "The key, Host or Origin is not allowed that (`forbidden`)",
    408: "The request took too long to arrive",
    413: "The body is larger than `max_body_bytes` (`body_too_large`)",
    431: "The head is larger than `max_header_bytes`",
    500: "A bug (`internal_error`), or what the message says; the log has more",
}
_HEADERS = {
    "x-request-id": ("Yours, or one that was made", True),
    "www-authenticate": ("`Bearer`", True),
    "retry-after": ("When to come again, in seconds", False),
    "x-should-retry": ("Whether another attempt may help; OpenAI's SDKs obey it", True),
}
_ERRORS = {Shape.OPENAI: ErrorAnswer, Shape.OLLAMA: OllamaError}
_TEMPLATE = "#/components/schemas/{name}"


@cache
def document_bytes(*, needs_key: bool) -> bytes:
    """Return the document as JSON; made once."""
    return msgspec.json.encode(document(needs_key=needs_key))


@cache
def document(*, needs_key: bool) -> dict[str, Any]:
    """Return the document. ``needs_key``: whether the gateway has keys, and so wants one."""
    schemas = _Schemas()
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        methods = paths.setdefault(operation.path, {})
        methods[operation.method] = _operation(operation, schemas, needs_key=needs_key)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "gglib",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": about} for name, about in _TAGS.items()],
        "paths": paths,
        "components": {
            "securitySchemes": _security_schemes(),
            "headers": {
                name: {"description": about, "required": always, "schema": {"type": "string"}}
                for name, (about, always) in _HEADERS.items()
            },
            "responses": {
                f"{shape}{status}": _refusal(status, about, shape, schemas)
                for shape in Shape
                for status, about in _ANY.items()
            },
            "schemas": schemas.components,
        },
    }


def _security_schemes() -> dict[str, Any]:
    key = "One of the gateway's `api_keys` or `keys`, or its local token"
    return {
        "key": {"type": "http", "scheme": "bearer", "description": key},
        "xApiKey": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": key},
        "adminToken": {
            "type": "http",
            "scheme": "bearer",
            "description": "The gateway's local token, `admin_token` of `gateway.json` in the "
            "data directory; or a key with the scope `admin`, or with `read` for what only tells",
        },
    }


def _security(access: Access, *, needs_key: bool) -> list[dict[str, list[str]]]:
    if access is Access.ANYBODY:
        return []
    if access is Access.ADMIN:
        return [{"adminToken": []}]
    keys: list[dict[str, list[str]]] = [{"key": []}, {"xApiKey": []}]
    return keys if needs_key else [{}, *keys]


def _operation(operation: Operation, schemas: _Schemas, *, needs_key: bool) -> dict[str, Any]:
    shape = operation.shape
    found: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.about,
        "security": _security(operation.access, needs_key=needs_key),
        "parameters": [
            {
                "name": each.name,
                "in": each.where,
                "description": each.about,
                "required": each.where == "path",
                "schema": dict(each.schema),
                **({} if each.example is None else {"example": each.example}),
            }
            for each in operation.parameters
        ],
    }
    if operation.body:
        found["requestBody"] = {"required": True, "content": schemas.content(operation.body)}
    responses = {
        status: _reply(reply, schemas)
        for status, reply in operation.replies.items()
        if status != "default"
    }
    for status in sorted({*_ANY, *operation.refusals}):
        if status == 401 and operation.access is Access.ANYBODY:
            continue
        about = operation.refusals.get(status)
        responses[str(status)] = (
            {"$ref": f"#/components/responses/{shape}{status}"}
            if about is None
            else _refusal(status, about, shape, schemas)
        )
    if "default" in operation.replies:
        responses["default"] = _reply(operation.replies["default"], schemas)
    return {**{name: value for name, value in found.items() if value != ""}, "responses": responses}


def _reply(reply: Reply, schemas: _Schemas) -> dict[str, Any]:
    headers = {**_header("x-request-id")}
    for name, about in reply.headers.items():
        headers[name] = {"description": about, "required": True, "schema": {"type": "string"}}
    found: dict[str, Any] = {"description": reply.about, "headers": headers}
    return {**found, "content": schemas.content(reply.bodies)} if reply.bodies else found


def _refusal(status: int, about: str, shape: Shape, schemas: _Schemas) -> dict[str, Any]:
    headers = _header("x-request-id")
    if status == 401:
        headers |= _header("www-authenticate")
    if status in (429, 503):
        headers |= _header("retry-after")
    if status in (408, 409, 429) or status >= 500:
        headers |= _header("x-should-retry")
    return {
        "description": about,
        "headers": headers,
        "content": schemas.content((Body("application/json", _ERRORS[shape]),)),
    }


def _header(name: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"}}


class _Schemas:
    """Schemas of types, each under its name once."""

    def __init__(self) -> None:
        self.components: dict[str, Any] = {}

    def content(self, bodies: tuple[Body, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for body in bodies:
            each = found[body.media_type] = {}
            if body.of is not None:
                each["schema"] = self._schema(body)
            if body.example is not None:
                each["example"] = body.example
        return found

    def _schema(self, body: Body) -> dict[str, Any]:
        if isinstance(body.of, dict):
            return body.of
        (schema,), components = msgspec.json.schema_components([body.of], ref_template=_TEMPLATE)
        for name, component in components.items():
            self.components.setdefault(name, _tidied(component))
        if body.more:
            self.components[schema["$ref"].rpartition("/")[2]].update(body.more)
        return schema


def _tidied(schema: Any) -> Any:
    """Return a schema without what says nothing."""
    if isinstance(schema, list):
        return [_tidied(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: _tidied(value)
        for name, value in schema.items()
        if (name, value) not in (("default", None), ("default", ""), ("required", []))
    }
