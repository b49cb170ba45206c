"""The model that a form (multipart/form-data) names, found without taking the form apart."""

from __future__ import annotations

import re

import attrs

from gglib.errors import InvalidRequest

__all__ = ["RequestedForm", "boundary_of", "read_requested_form", "with_form_model"]

#: RFC 2046 §5.1.1.
_BOUNDARY = re.compile(
    rb"""multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s;,"]{1,70}))""",
    re.IGNORECASE,
)
_NAME = re.compile(
    rb"""(?i)^content-disposition:[^\r\n]*?;\s*name=(?:"((?:[^"\\\r\n]|\\.)*)"|([^\s;]+))"""
)
_MAX_PART_HEAD_BYTES = 8192
_MAX_PARTS = 1000
_MAX_VALUE_BYTES = 1024


@attrs.frozen
class RequestedForm:
    """The fields that decide where a form goes and how it is answered."""

    model: str
    stream: bool
    start: int
    """Where the model's name begins in the body."""
    end: int


def boundary_of(content_type: bytes) -> bytes | None:
    """Return the boundary between a form's parts; ``None``: it is no form."""
    found = _BOUNDARY.match(content_type.strip())
    return None if found is None else found[1] or found[2]


def read_requested_form(body: bytes, boundary: bytes) -> RequestedForm:
    """Return the model that a form names, and whether it asks for a stream.

    Raises:
        InvalidRequest: it is no such form, or has no field ``model``, or two of them.
    """
    fields: dict[bytes, tuple[int, int]] = {}
    for name, start, end in _parts(body, b"--" + boundary):
        if name not in (b"model", b"stream"):
            continue
        if name in fields:
            raise InvalidRequest(f"the form has '{name.decode()}' twice; send it once", "model")
        if end - start > _MAX_VALUE_BYTES:
            raise InvalidRequest(f"the form's '{name.decode()}' is too long", name.decode())
        fields[name] = (start, end)
    if b"model" not in fields:
        raise InvalidRequest("the form has no 'model'; name a model of GET /v1/models", "model")
    start, end = fields[b"model"]
    model = body[start:end].decode("utf-8", "replace")
    if not model:
        raise InvalidRequest("'model' is empty; name a model of GET /v1/models", "model")
    stream = body[slice(*fields.get(b"stream", (0, 0)))].strip().lower() in (b"true", b"1")
    return RequestedForm(model, stream, start, end)


def with_form_model(body: bytes, form: RequestedForm, name: str) -> bytes:
    """Return ``body`` with another model's name; every other byte stays."""
    return b"".join((body[: form.start], name.encode(), body[form.end :]))


def _parts(body: bytes, delimiter: bytes) -> list[tuple[bytes, int, int]]:
    """Return each part's name, and where its value begins and ends."""
    if not body.startswith(delimiter):
        raise _damaged("it does not begin with its boundary")
    between = b"\r\n" + delimiter
    parts: list[tuple[bytes, int, int]] = []
    at = len(delimiter)
    while not body.startswith(b"--", at):
        if len(parts) >= _MAX_PARTS:
            raise _damaged(f"it has more than {_MAX_PARTS} parts")
        if not body.startswith(b"\r\n", at):
            raise _damaged("a boundary is followed by something else")
        # From the line's end on, so that a part without headers is found empty.
        head_end = body.find(b"\r\n\r\n", at, at + _MAX_PART_HEAD_BYTES)
        value_end = body.find(between, at)
        if head_end < 0 or value_end < head_end + 4:
            raise _damaged("a part is cut short")
        parts.append((_name_of(body[at + 2 : head_end]), head_end + 4, value_end))
        at = value_end + len(between)
    return parts


def _name_of(head: bytes) -> bytes:
    for line in head.split(b"\r\n"):
        found = _NAME.match(line)
        if found is not None:
            return found[1] if found[1] is not None else found[2]
    return b""


def _damaged(reason: str) -> InvalidRequest:
    return InvalidRequest(f"the body is not the form that its Content-Type says: {reason}", None)
