"""``[gateway.keys.NAME]``: who may come in, and to do what. What is kept of a key is its hash."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NoReturn

import attrs

from gglib.domain.access import Grant, Scope
from gglib.domain.validation import stating
from gglib.errors import InvalidValue

__all__ = ["KEY", "KeySettings", "check_keys", "digest_of", "keys_of"]

KEY = re.compile(r"[!-~]+")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
_SCOPES = tuple(str(scope) for scope in Scope)
#: Keys are named for people and programs that are to do one thing.
_DEFAULT_SCOPES = (Scope.INFERENCE,)
_FIELDS = ("key", "sha256", "scopes", "models")


def digest_of(key: str) -> bytes:
    """Return what a key is known by."""
    return hashlib.sha256(key.encode()).digest()


@attrs.frozen(kw_only=True)
class KeySettings:
    """One named key."""

    digest: bytes = attrs.field(repr=False)
    """SHA-256."""
    grant: Grant


def keys_of(value: Any) -> Any:
    """Return the keys that tables describe, by name; what is no table is left to ``check_keys``.

    Raises:
        InvalidValue: one of them is wrong. No key is in the message.
    """
    if not isinstance(value, Mapping):
        return value
    return MappingProxyType({name: _key(name, each) for name, each in value.items()})


@stating(
    {
        "type": "object",
        "propertyNames": {"pattern": f"^{_NAME.pattern}$"},
        "additionalProperties": {
            "description": "A key: itself, or its SHA-256 in hexadecimal, and what it opens.",
            "type": "object",
            "properties": {
                "key": {"type": "string", "pattern": f"^{KEY.pattern}$"},
                "sha256": {"type": "string", "pattern": f"^{_SHA256.pattern}$"},
                "scopes": {
                    "type": "array",
                    "items": {"enum": list(_SCOPES)},
                    "minItems": 1,
                    "default": [str(scope) for scope in _DEFAULT_SCOPES],
                },
                "models": {
                    "type": "array",
                    "items": {"type": "string", "minLength": 1},
                    "minItems": 1,
                },
            },
            "oneOf": [{"required": ["key"]}, {"required": ["sha256"]}],
            "additionalProperties": False,
        },
    }
)
def check_keys(_instance: Any, attribute: Any, value: Any) -> None:
    """Refuse what is no table of keys, or has one key twice."""
    if not isinstance(value, Mapping):
        # It may be a key: it is not repeated.
        raise InvalidValue(attribute.name, "…", "tables in the settings file, [gateway.keys.NAME]")
    names: dict[bytes, str] = {}
    for name, key in value.items():
        holder = names.setdefault(key.digest, name)
        if holder != name:
            _fail(name, "key", f"a key of its own, not that of {holder}")


def _key(name: str, value: Any) -> KeySettings:
    if isinstance(value, KeySettings):
        return value
    if not _NAME.fullmatch(name):
        raise InvalidValue("keys", name, "names of letters, digits, dots, dashes and underscores")
    if not isinstance(value, Mapping):
        raise InvalidValue(f"keys.{name}", "…", f"a table, [gateway.keys.{name}]")
    for field in value:
        if field not in _FIELDS:
            raise InvalidValue(f"keys.{name}", field, f"of its keys only {', '.join(_FIELDS)}")
    grant = Grant(_scopes(name, value), _models(name, value))
    if grant.models is not None and Scope.ADMIN in grant.scopes:
        _fail(name, "models", "none with the scope admin, which is not limited to models")
    return KeySettings(digest=_digest(name, value), grant=grant)


def _digest(name: str, value: Mapping[str, Any]) -> bytes:
    if ("key" in value) == ("sha256" in value):
        _fail(name, "key", "either a key or its sha256")
    if "key" in value:
        key = value["key"]
        if not isinstance(key, str) or not KEY.fullmatch(key):
            _fail(name, "key", "a text of printable ASCII characters without spaces")
        return digest_of(key)
    sha256 = value["sha256"]
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        _fail(name, "sha256", "64 hexadecimal digits")
    return bytes.fromhex(sha256)


def _scopes(name: str, value: Mapping[str, Any]) -> frozenset[Scope]:
    said = value.get("scopes", _DEFAULT_SCOPES)
    if not isinstance(said, list | tuple) or not said or not set(map(str, said)) <= set(_SCOPES):
        raise InvalidValue(f"keys.{name}.scopes", said, f"a list of {', '.join(_SCOPES)}")
    return frozenset(Scope(scope) for scope in said)


def _models(name: str, value: Mapping[str, Any]) -> tuple[str, ...] | None:
    said = value.get("models")
    if said is None:
        return None
    if not isinstance(said, list | tuple) or not said or not all(map(_is_pattern, said)):
        raise InvalidValue(f"keys.{name}.models", said, "a list of names, in which * may stand")
    return tuple(said)


def _is_pattern(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _fail(name: str, field: str, expected: str) -> NoReturn:
    # What is wrong may be the key: it is not repeated.
    raise InvalidValue(f"keys.{name}.{field}", "…", expected)
