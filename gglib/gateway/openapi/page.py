"""The OpenAPI document as a page: plain HTML, with neither scripts nor anything from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from functools import cache
from html import escape
from typing import Any

from gglib.gateway.openapi.document import document
from gglib.gateway.openapi.operations import Shape

__all__ = ["CONTENT_SECURITY_POLICY", "page_bytes"]

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --faint: #777; --mono: ui-monospace, monospace; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem; }
h1 small { color: var(--faint); font-weight: normal; }
code, pre { font-family: var(--mono); font-size: .9em; }
pre { border: 1px solid var(--line); border-radius: 4px; overflow-x: auto; padding: .5rem; }
details { border: 1px solid var(--line); border-radius: 4px; margin: .4rem 0; }
details > div { padding: 0 .8rem .8rem; }
summary { cursor: pointer; padding: .4rem .8rem; }
summary b { display: inline-block; font-family: var(--mono); min-width: 4.5em; }
summary span { color: var(--faint); }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .2rem .6rem .2rem 0; text-align: left;
  vertical-align: top; }
th { font-weight: normal; white-space: nowrap; }
nav a { margin-right: 1em; }
"""
_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
#: The page may use its own style, and nothing else at all.
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_DIGEST}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_CODE = re.compile(r"`([^`]+)`")


@cache
def page_bytes(*, needs_key: bool) -> bytes:
    """Return the page, in UTF-8; made once."""
    told = document(needs_key=needs_key)
    info = told["info"]
    anywhere = {
        name.removeprefix(Shape.OPENAI): each
        for name, each in told["components"]["responses"].items()
        if name.startswith(Shape.OPENAI)
    }
    sections = [_section(tag, told) for tag in told["tags"]]
    types = [_type(name, each) for name, each in sorted(told["components"]["schemas"].items())]
    places = "".join(
        _link(name, name) for name in (*(tag["name"] for tag in told["tags"]), "Types")
    )
    body = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>gglib's routes</title><style>{_STYLE}</style></head><body>
<h1>gglib <small>{escape(info["version"])}</small></h1>
{_words(info["description"])}
<p>For programs: <a href="/openapi.json"><code>/openapi.json</code></a>, OpenAPI 3.1.</p>
<nav>{places}</nav>
<details><summary>What any request may be answered</summary>
<div>{_answers(anywhere)}</div></details>
{"".join(sections)}
<h2 id="Types">Types</h2>
{"".join(types)}
</body></html>
"""
    return body.encode()


def _link(anchor: str, text: str) -> str:
    return f'<a href="#{escape(anchor)}">{escape(text)}</a>'


def _words(text: str) -> str:
    paragraphs = (_inline(each) for each in text.strip().split("\n\n"))
    return "".join(f"<p>{each}</p>" for each in paragraphs if each)


def _inline(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(text.replace("``", "`"), quote=False))


def _section(tag: dict[str, Any], told: dict[str, Any]) -> str:
    operations = [
        _operation(method, path, operation)
        for path, methods in told["paths"].items()
        for method, operation in methods.items()
        if tag["name"] in operation["tags"]
    ]
    name = escape(tag["name"])
    return f'<h2 id="{name}">{name}</h2>{_words(tag["description"])}{"".join(operations)}'


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parts = [_words(operation.get("description", "")), _key(operation["security"])]
    if operation["parameters"]:
        rows = [
            (
                f"<code>{escape(each['name'])}</code>",
                each["in"],
                f"{_kind(each['schema'])}. {_inline(each['description'])}",
            )
            for each in operation["parameters"]
        ]
        parts.append(f"<h4>Parameters</h4>{_table(rows)}")
    if "requestBody" in operation:
        parts.append(f"<h4>Request</h4>{_content(operation['requestBody']['content'])}")
    # What any request may be answered is told once, above.
    own = {status: each for status, each in operation["responses"].items() if "$ref" not in each}
    parts.append(f"<h4>Answers</h4>{_answers(own)}")
    head = f"<b>{method.upper()}</b> <code>{escape(path)}</code>"
    return (
        f'<details id="{operation["operationId"]}"><summary>{head} '
        f"<span>{_inline(operation['summary'])}</span></summary><div>{''.join(parts)}</div></details>"
    )


def _key(security: list[dict[str, Any]]) -> str:
    if not security:
        return "<p>Needs no key.</p>"
    if {} in security:
        return "<p>Needs a key where there are <code>api_keys</code>; this gateway has none.</p>"
    if "adminToken" in security[0]:
        return "<p>Needs the gateway's local token.</p>"
    return "<p>Needs a key.</p>"


def _answers(responses: dict[str, Any]) -> str:
    return _table(
        (status, _inline(each["description"]), _content(each.get("content", {}), brief=True))
        for status, each in responses.items()
    )


def _content(content: dict[str, Any], *, brief: bool = False) -> str:
    parts = []
    for media_type, each in content.items():
        kind = f": {_kind(each['schema'])}" if "schema" in each else ""
        parts.append(f"<code>{escape(media_type)}</code>{kind}")
        if "example" in each and not brief:
            shown = each["example"]
            text = shown if isinstance(shown, str) else json.dumps(shown, indent=2)
            parts.append(f"<pre>{escape(text, quote=False)}</pre>")
        else:
            parts.append("<br>")
    return "".join(parts).removesuffix("<br>")


def _type(name: str, schema: dict[str, Any]) -> str:
    required = schema.get("required", [])
    rows = [
        (
            f"<code>{escape(field)}</code>",
            "" if field in required else "optional",
            ". ".join((_kind(each), *map(_inline, _said(each)))),
        )
        for field, each in schema.get("properties", {}).items()
    ]
    shown = _table(rows) if rows else f"<p>{_kind(schema)}</p>"
    about = _words(schema.get("description", ""))
    return (
        f'<details id="type-{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        f"<div>{about}{shown}</div></details>"
    )


def _said(schema: dict[str, Any]) -> list[str]:
    """Return what is said of a value, or of the kinds that it may be of."""
    if "description" in schema:
        return [schema["description"]]
    return [text for each in schema.get("anyOf", ()) for text in _said(each)]


def _kind(schema: dict[str, Any]) -> str:
    """Return in a few words what values a schema admits."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _link(f"type-{name}", name)
    if "enum" in schema:
        values = (json.dumps(value) for value in schema["enum"])
        return " or ".join(f"<code>{escape(value, quote=False)}</code>" for value in values)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(each) for each in schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if "properties" in schema:
        return "object of " + ", ".join(
            f"<code>{escape(name)}</code>" for name in schema["properties"]
        )
    kinds = schema.get("type", "anything")
    words = " or ".join([kinds] if isinstance(kinds, str) else kinds)
    bounds = [
        f"{word} {json.dumps(schema[name])}"
        for name, word in (("minimum", "at least"), ("maximum", "at most"), ("default", "default"))
        # An integer's own bounds are no news.
        if name in schema and schema[name] not in (-(2**63), 2**63 - 1)
    ]
    return escape(", ".join([words, *bounds]))


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    lines = (
        f"<tr><th>{first}</th>{''.join(f'<td>{cell}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    return f"<table>{''.join(lines)}</table>"
