"""The document and the page: they tell of every route, truly and well."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import jsonschema
import pytest
import schemathesis

from gglib import __version__
from gglib.gateway.app import Parts, make_app
from gglib.gateway.openapi.document import document, document_bytes
from gglib.gateway.openapi.page import CONTENT_SECURITY_POLICY, page_bytes
from gglib.gateway.relay.routes import INFERENCE_PATHS, UPSTREAM_ROUTE

OPEN = document(needs_key=False)
KEYED = document(needs_key=True)


def operations(told: dict[str, Any] = OPEN) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Return every operation with its path and method."""
    for path, methods in told["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def values_of(key: str, value: Any) -> Iterator[Any]:
    """Return whatever stands under ``key``, at any depth."""
    if isinstance(value, dict):
        if key in value:
            yield value[key]
        for each in value.values():
            yield from values_of(key, each)
    elif isinstance(value, list):
        for each in value:
            yield from values_of(key, each)


# The document


def test_document_is_openapi() -> None:
    """Of the version that it says; and it is gglib's own version that it tells."""
    for told in (OPEN, KEYED):
        schemathesis.openapi.from_dict(told).validate()
    assert (OPEN["openapi"], OPEN["info"]["version"]) == ("3.1.0", __version__)
    assert json.loads(document_bytes(needs_key=False)) == OPEN


def test_document_has_every_route_and_no_other() -> None:
    """Those of litestar, and those that it never sees."""
    app = make_app(Parts(*[None] * len(Parts.__struct_fields__)))  # type: ignore[arg-type]
    real = {(path, "post") for path in INFERENCE_PATHS}
    for route in app.routes:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
        methods = {method.lower() for method in route.methods} - {"options"}  # type: ignore[attr-defined]
        if path == "/admin/models/{target}":
            for verb in ("load", "unload", "drain", "pin", "unpin"):
                real |= {(f"/admin/models/{{name}}/{verb}", method) for method in methods}
        else:
            real |= {(path, method) for method in methods}
    told = {(path, method) for path, method, _ in operations()}
    any_method = {(path, method) for path, method in told if path == UPSTREAM_ROUTE}
    assert {method for _, method in any_method} >= {"get", "post", "put", "patch", "delete"}
    assert told - any_method == real


def test_operations_are_described() -> None:
    """Names are unique, parameters are those of the path, and every answer has its form."""
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names))
    tags = {tag["name"] for tag in OPEN["tags"]}
    for path, _, operation in operations():
        assert operation["summary"]
        assert set(operation["tags"]) <= tags
        in_path = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
        assert in_path == set(re.findall(r"\{(\w+)\}", path))
        assert {"400", "403", "500"} <= set(operation["responses"])
        assert ("401" in operation["responses"]) == bool(operation["security"])


def test_references_lead_somewhere() -> None:
    """To schemas, headers and answers that are there; and none is there for nobody."""
    named = set(values_of("$ref", OPEN))
    for reference in named:
        found: Any = OPEN
        for name in reference.removeprefix("#/").split("/"):
            found = found[name]
    there = {
        f"#/components/{kind}/{name}"
        for kind, each in OPEN["components"].items()
        if kind != "securitySchemes"
        for name in each
    }
    assert there == named


def test_examples_are_what_their_schemas_admit() -> None:
    """Of requests and answers."""
    count = 0
    for content in values_of("content", OPEN):
        for media_type, each in content.items() if isinstance(content, dict) else ():
            if "/" in media_type and "example" in each and "schema" in each:
                schema = {**each["schema"], "components": OPEN["components"]}
                jsonschema.validate(each["example"], schema, jsonschema.Draft202012Validator)
                count += 1
    assert count > 20


@pytest.mark.parametrize(
    ("path", "method", "without_keys", "with_keys"),
    [
        ("/health", "get", [], []),
        ("/v1/models", "get", [{}, "key", "xApiKey"], ["key", "xApiKey"]),
        ("/v1/chat/completions", "post", [{}, "key", "xApiKey"], ["key", "xApiKey"]),
        ("/docs", "get", [{}, "key", "xApiKey"], ["key", "xApiKey"]),
        ("/admin/pool", "get", ["adminToken"], ["adminToken"]),
        ("/upstream/{model}/{path}", "delete", ["adminToken"], ["adminToken"]),
    ],
)
def test_document_says_who_may_ask(
    path: str, method: str, without_keys: list[Any], with_keys: list[Any]
) -> None:
    """As the door has it."""
    for told, wanted in ((OPEN, without_keys), (KEYED, with_keys)):
        named = [next(iter(each), {}) for each in told["paths"][path][method]["security"]]
        assert named == wanted


def test_errors_under_api_are_ollamas() -> None:
    """And OpenAI's anywhere else."""
    for path, _, operation in operations():
        for status, answer in operation["responses"].items():
            if status < "400" or status == "default":
                continue
            while "$ref" in answer:
                answer = OPEN["components"]["responses"][answer["$ref"].rpartition("/")[2]]
            schema = answer["content"]["application/json"]["schema"]["$ref"]
            ours = "OllamaError" if path.startswith("/api/") else "ErrorAnswer"
            assert schema.endswith(f"/{ours}"), (path, status)


# The page


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.styles: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in {"meta", "br"}:
            self.open.append(tag)
        for name, value in attrs:
            assert name in {"charset", "content", "href", "id", "lang", "name"}, name
            if name == "id":
                self.ids.append(value or "")
            if name == "href":
                self.links.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.styles.append(data)


PAGE = Page(page_bytes(needs_key=False).decode())


def test_page_tells_of_every_operation_and_type() -> None:
    """Under names that can be linked to; what it links to is there."""
    assert PAGE.open == []
    assert len(PAGE.ids) == len(set(PAGE.ids))
    assert {operation["operationId"] for _, _, operation in operations()} <= set(PAGE.ids)
    assert {f"type-{name}" for name in OPEN["components"]["schemas"]} <= set(PAGE.ids)
    assert {link.removeprefix("#") for link in PAGE.links} - {"/openapi.json"} <= set(PAGE.ids)


def test_page_needs_nothing_but_itself() -> None:
    """No script, no picture, nothing from elsewhere: its policy allows its own style alone."""
    assert not {"script", "img", "link", "iframe", "form", "object"} & set(PAGE.tags)
    digest = base64.b64encode(hashlib.sha256("".join(PAGE.styles).encode()).digest()).decode()
    assert CONTENT_SECURITY_POLICY.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")


def test_page_says_whether_keys_are_needed() -> None:
    """As the document does."""
    assert b"this gateway has none" in page_bytes(needs_key=False)
    assert b"this gateway has none" not in page_bytes(needs_key=True)
