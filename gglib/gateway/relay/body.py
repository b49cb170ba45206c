"""What the gateway must know of a request's body, read without decoding the rest of it."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from gglib.errors import InvalidRequest
from gglib.gateway.relay.body_rules import BodyRules

__all__ = ["RequestedModel", "read_requested_model", "with_model"]


class RequestedModel(msgspec.Struct):
    """The two fields that decide where a request goes and how it is answered."""

    model: str
    stream: bool | None = None


_decode = msgspec.json.Decoder(RequestedModel).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_requested_model(body: bytes) -> RequestedModel:
    """Return the model a JSON body names, and whether it asks for a stream.

    Raises:
        InvalidRequest: it is not a JSON object, or has no ``model``, or two of them.
    """
    try:
        requested = _decode(body)
    except RecursionError:
        raise _too_deep() from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _explain(body, error) from None
    # "model" can also be spelled with escapes, which nobody needs: all of its letters are \u006x.
    if body.count(b'"model"') > 1 or b"\\u006" in body:
        _refuse_two_models(body)
    if not requested.model:
        raise InvalidRequest("'model' is empty; name a model of GET /v1/models", "model")
    return requested


def with_model(body: bytes, name: str, rules: BodyRules | None = None) -> bytes:
    """Return ``body`` with another model name, and changed by ``rules``.

    Every other value keeps its very bytes.
    """
    fields = _decode_fields(body)
    if rules is not None:
        rules.apply(fields)
    fields["model"] = msgspec.Raw(msgspec.json.encode(name))
    return msgspec.json.encode(fields)


def _too_deep() -> InvalidRequest:
    return InvalidRequest("the body is nested too deeply", None)


def _explain(body: bytes, error: Exception) -> InvalidRequest:
    if not body.strip():
        return InvalidRequest("the request has no body; send a JSON object with 'model'", "model")
    try:
        fields = _decode_fields(body)
    except RecursionError:
        return _too_deep()
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return InvalidRequest(f"the body is not a JSON object: {error}", None)
    for name, kind in (("model", "a string"), ("stream", "true or false")):
        if name in fields and f"`$.{name}`" in str(error):
            value = bytes(fields[name])[:100].decode("utf-8", "replace")
            return InvalidRequest(f"'{name}' is {value}; expected {kind}", name)
    return InvalidRequest("the body has no 'model'; name a model of GET /v1/models", "model")


def _refuse_two_models(body: bytes) -> None:
    def check(pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        return pairs

    try:
        pairs = json.loads(body, object_pairs_hook=check)
    except (ValueError, RecursionError):
        raise InvalidRequest("the body is not a JSON object we can read", None) from None
    if sum(1 for key, _ in pairs if key == "model") > 1:
        raise InvalidRequest("the body names 'model' twice; send it once", "model")
