"""What a user may set for a model or a profile, by key: ``context_size``, ``inference.top_k`` …

The keys are those of ``[models.NAME]`` in a settings file. The values are checked by the domain.
"""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import attrs

from gglib.domain.config import ServerConfig
from gglib.domain.inference import InferenceConfig
from gglib.domain.model import SERVER_DEFAULT_FIELDS, ModelDefaults, Profile
from gglib.errors import InvalidRequest, InvalidValue

__all__ = [
    "changed_defaults",
    "changed_profile",
    "model_keys",
    "parse_setting",
    "profile_keys",
    "settings_of",
]

T = TypeVar("T")

#: Fields of ``ModelDefaults`` that are keys as they are.
_OWN_FIELDS = (
    "ttl_s",
    "pinned",
    "priority",
    "concurrency_limit",
    "memory_bytes",
    "engine",
    "runner",
    "replicas",
)
_INFERENCE, _ENVIRONMENT, _SET, _STRIP = "inference", "environment", "set", "strip"
_RUNNER = "runner"
_FILES = frozenset({"mmproj_path", "slot_save_path"})
_NO_FILE = "none"
_TRUE, _FALSE = frozenset({"true", "yes", "on", "1"}), frozenset({"false", "no", "off", "0"})
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT])(i?)B?", re.IGNORECASE)
_EXPONENTS = {"K": 1, "M": 2, "G": 3, "T": 4}


def profile_keys() -> tuple[str, ...]:
    """Return the keys of a profile. ``set.NAME`` stands for any parameter of a request."""
    inference = (f"{_INFERENCE}.{field.name}" for field in attrs.fields(InferenceConfig))
    return (*sorted(inference), f"{_SET}.NAME", _STRIP)


def model_keys() -> tuple[str, ...]:
    """Return the keys of a model. ``environment.NAME`` stands for any variable."""
    server = SERVER_DEFAULT_FIELDS - {_ENVIRONMENT}
    return (*sorted({*server, *_OWN_FIELDS}), f"{_ENVIRONMENT}.NAME", *profile_keys())


def settings_of(said: ModelDefaults | Profile) -> dict[str, Any]:
    """Return what is set, by key; values are plain data."""
    found: dict[str, Any] = {}
    if isinstance(said, ModelDefaults):
        for name, value in said.server.items():
            if name == _ENVIRONMENT:
                found |= {f"{_ENVIRONMENT}.{variable}": each for variable, each in value.items()}
            else:
                found[name] = value
        unset = ModelDefaults()
        for name in _OWN_FIELDS:
            if getattr(said, name) != getattr(unset, name):
                found[name] = getattr(said, name)
    inference = said.inference or InferenceConfig()
    found |= {f"{_INFERENCE}.{name}": value for name, value in inference.set_fields().items()}
    found |= {f"{_SET}.{name}": value for name, value in said.set_parameters.items()}
    if said.strip_parameters:
        found[_STRIP] = said.strip_parameters
    return {
        key: _NO_FILE if value is None else _plain(value) for key, value in sorted(found.items())
    }


def changed_defaults(defaults: ModelDefaults, changes: Mapping[str, Any]) -> ModelDefaults:
    """Return ``defaults`` with each key of ``changes`` set to its value; ``None`` clears it.

    ``inference``, ``environment`` and ``set`` alone clear all that begins with them. A file that is
    ``none`` is none, whatever was found beside the model.

    Raises:
        InvalidRequest: a key is unknown; names the nearest.
        InvalidValue: a value is out of its range.
    """
    server = dict(defaults.server)
    own: dict[str, Any] = {}
    for key, value in changes.items():
        head, _, rest = key.partition(".")
        if key in _OWN_FIELDS:
            own[key] = getattr(ModelDefaults(), key) if value is None else value
        elif head == _ENVIRONMENT:
            variables = _with(server.get(_ENVIRONMENT, {}), rest, value, key, model_keys())
            server = _with(server, _ENVIRONMENT, variables or None, key, model_keys())
        elif key in SERVER_DEFAULT_FIELDS:
            server = _with(server, key, value, key, model_keys())
    said: dict[str, Any] = {
        name: None if name in _FILES and value == _NO_FILE else _plain_path(value)
        for name, value in server.items()
    }
    # What ModelDefaults takes as plain data, ServerConfig checks.
    _checked("", lambda: ServerConfig(model_id=0, model_name="x", model_path=Path("x"), **said))
    requests = _changed_requests(defaults, changes, model_keys())
    return attrs.evolve(defaults, server=said, **own, **requests)


def changed_profile(profile: Profile, changes: Mapping[str, Any]) -> Profile:
    """As ``changed_defaults``, for a profile and its keys."""
    requests = _changed_requests(profile, changes, profile_keys())
    requests["inference"] = requests["inference"] or InferenceConfig()
    return attrs.evolve(profile, **requests)


def parse_setting(key: str, text: str) -> Any:
    """Return what somebody means who writes ``KEY=text``: of the type that the key has.

    A text that is none of that type is left as it is: the domain then names what it should be.
    Lists are JSON or, of arguments, words as in a shell; of names, with commas between them.
    Sizes may have a unit (``6GiB``).
    """
    head, _, rest = key.partition(".")
    if head == _SET and rest:
        return _json_or(text)
    if key == _STRIP or (key == _RUNNER and not text.startswith("[")):
        return tuple(word.strip() for word in text.split(","))
    if key == "extra_args" and not text.startswith("["):
        try:
            return tuple(shlex.split(text))
        except ValueError as error:
            raise InvalidValue(key, text, f"words as in a shell ({error})") from None
    kind = _type_of(head, rest)
    return text if kind is None else _converted(text, kind, key)


def _changed_requests(
    said: ModelDefaults | Profile, changes: Mapping[str, Any], known: tuple[str, ...]
) -> dict[str, Any]:
    inference = (said.inference or InferenceConfig()).set_fields()
    forced: dict[str, Any] = dict(said.set_parameters)
    stripped: Any = said.strip_parameters
    sampling = {field.name for field in attrs.fields(InferenceConfig)}
    for key, value in changes.items():
        head, _, rest = key.partition(".")
        if head == _INFERENCE and (rest in sampling or key == _INFERENCE):
            inference = _with(inference, rest, value, key, known)
        elif head == _SET:
            forced = _with(forced, rest, value, key, known)
        elif key == _STRIP:
            stripped = () if value is None else value
        elif key not in known and not (head == _ENVIRONMENT and f"{head}.NAME" in known):
            raise _unknown(key, known)
    checked = _checked(f"{_INFERENCE}.", lambda: InferenceConfig(**inference))
    return {
        "inference": checked if inference else None,
        "set_parameters": forced,
        "strip_parameters": stripped,
    }


def _with(
    values: Mapping[str, Any], name: str, value: Any, key: str, known: tuple[str, ...]
) -> dict[str, Any]:
    """Return ``values`` with one of them changed; without a name, ``None`` clears all."""
    if not name:
        if value is None:
            return {}
        raise _unknown(key, known)
    kept = {each: found for each, found in values.items() if each != name}
    return kept if value is None else {**kept, name: value}


def _unknown(key: str, known: tuple[str, ...]) -> InvalidRequest:
    shown = key[:100]
    close = difflib.get_close_matches(shown, known, n=1, cutoff=0.6)
    # Somebody who knows the parameter need not know its group.
    close = close or [each for each in known if shown in each.split(".")]
    hint = f"did you mean '{close[0]}'?" if close else "`gglib model set --help` lists them"
    return InvalidRequest(f"no setting is called '{shown}'; {hint}", "settings")


def _checked(prefix: str, make: Callable[[], T]) -> T:
    try:
        return make()
    except InvalidValue as error:
        raise InvalidValue(prefix + error.field, error.value, error.expected) from None


def _type_of(head: str, rest: str) -> Any:
    if head == _INFERENCE:
        return get_type_hints(InferenceConfig).get(rest)
    if head in _OWN_FIELDS:
        return get_type_hints(ModelDefaults)[head]
    return get_type_hints(ServerConfig).get(head) if not rest else None


def _converted(text: str, kind: Any, key: str) -> Any:
    kinds = set(get_args(kind)) or {kind}
    if kinds & {Path}:
        return text if text == _NO_FILE else str(Path(text).expanduser().absolute())
    for primitive, convert in ((bool, _boolean), (int, _whole), (float, _number)):
        if primitive in kinds:
            value = convert(text)
            return _bytes(text) if value is text and key.endswith("_bytes") else value
    if get_origin(kind) is tuple or any(get_origin(each) in (tuple, Mapping) for each in kinds):
        parsed = _json_or(text) if text[:1] in ("[", "{") else text
        return tuple(parsed) if isinstance(parsed, list) else parsed
    return text


def _plain_path(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _boolean(text: str) -> Any:
    word = text.casefold()
    return True if word in _TRUE else False if word in _FALSE else text


def _whole(text: str) -> Any:
    return int(text) if re.fullmatch(r"[+-]?[0-9][0-9_]{0,30}", text) else text


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _bytes(text: str) -> Any:
    match = _SIZE.fullmatch(text)
    if match is None:
        return text
    unit = 1024 if match[3] else 1000
    return int(float(match[1]) * unit ** _EXPONENTS[match[2].upper()])


def _json_or(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return _plain_path(value)
