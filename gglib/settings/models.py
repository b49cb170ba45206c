"""``[models.NAME]`` tables to declared models, each value checked by the domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import attrs

from gglib.domain.config import ServerConfig
from gglib.domain.inference import InferenceConfig
from gglib.domain.model import SERVER_DEFAULT_FIELDS, ModelDefaults, Profile, check_alias
from gglib.errors import InvalidValue
from gglib.settings.file import SettingsFile, unknown_key
from gglib.settings.key_lines import KeyPath, dotted
from gglib.settings.values import DeclaredModel

__all__ = ["MODEL_DEFAULT_KEYS", "declared_models"]

T = TypeVar("T")

MODEL_DEFAULT_KEYS = frozenset(
    {
        "concurrency_limit",
        "engine",
        "memory_bytes",
        "pinned",
        "priority",
        "replicas",
        "runner",
        "ttl_s",
    }
)
#: What changes requests, of a model and of its profiles.
_REQUESTS = frozenset({"inference", "set", "strip"})
_KNOWN = frozenset(
    {"path", "aliases", "profiles"} | _REQUESTS | MODEL_DEFAULT_KEYS | SERVER_DEFAULT_FIELDS
)
_SERVER_PATHS = frozenset({"mmproj_path", "slot_save_path"})


def declared_models(file: SettingsFile) -> Mapping[str, DeclaredModel]:
    """Return the models that ``file`` declares, by name.

    Raises:
        ConfigurationError: a key is unknown, a value wrong, or a name taken twice.
    """
    root: KeyPath = ("models",)
    tables = file.table(root, file.data.get("models", {}))
    models = {name: _model(file, (*root, name), table) for name, table in tables.items()}
    holders = {name: name for name in models}
    for model in models.values():
        for alias in model.aliases:
            holder = holders.setdefault(alias, model.name)
            if holder != model.name or alias in models:
                where = (*root, model.name, "aliases")
                file.fail(where, f"the alias '{alias}' is taken by model '{holder}'")
    return MappingProxyType(models)


def _model(file: SettingsFile, where: KeyPath, value: Any) -> DeclaredModel:
    table = file.table(where, value)
    name = str(where[-1])
    _check_keys(file, where, table, _KNOWN)
    if "path" not in table:
        file.fail(where, f"[{dotted(where)}] needs a path, the model's file")
    folder = file.path.parent
    path = _path(file, (*where, "path"), table["path"], folder)
    server = _server(file, where, table, folder)
    defaults = {key: value for key, value in table.items() if key in MODEL_DEFAULT_KEYS}

    def check() -> tuple[str, ...]:
        ServerConfig(model_id=0, model_name=name, model_path=path, **server)
        ModelDefaults(server=server, **defaults)
        return tuple(check_alias(alias) for alias in _list(table.get("aliases", []), "aliases"))

    aliases = _checked(file, where, check)
    profiles = file.table((*where, "profiles"), table.get("profiles", {}))
    return DeclaredModel(
        name=name,
        path=path,
        aliases=tuple(dict.fromkeys(aliases)),
        server=MappingProxyType(server),
        **_requests(file, where, table),
        profiles=tuple(
            _profile(file, (*where, "profiles", profile), each)
            for profile, each in profiles.items()
        ),
        **defaults,
    )


def _profile(file: SettingsFile, where: KeyPath, value: Any) -> Profile:
    table = file.table(where, value)
    _check_keys(file, where, table, _REQUESTS)
    requests = _requests(file, where, table)
    inference = requests.pop("inference") or InferenceConfig()
    return _checked(
        file, where, lambda: Profile(name=str(where[-1]), inference=inference, **requests)
    )


def _requests(file: SettingsFile, where: KeyPath, table: Mapping[str, Any]) -> dict[str, Any]:
    """Return what changes requests."""
    said = file.table((*where, "inference"), table.get("inference", {}))
    known = {field.name for field in attrs.fields(InferenceConfig)}
    _check_keys(file, (*where, "inference"), said, known)
    inference = _checked(file, (*where, "inference"), lambda: InferenceConfig(**said))
    forced = table.get("set", {})
    stripped = table.get("strip", [])
    for key, field, value in (
        ("set", "set_parameters", forced),
        ("strip", "strip_parameters", stripped),
    ):
        try:
            ModelDefaults(**{field: value})
        except InvalidValue as error:
            here = (*where, key)
            file.fail(here, f"{dotted(here)} has {error.value!r}; expected {error.expected}")
    return {
        "inference": inference if said else None,
        "set_parameters": MappingProxyType(forced),
        "strip_parameters": tuple(stripped),
    }


def _server(
    file: SettingsFile, where: KeyPath, table: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    server = {key: value for key, value in table.items() if key in SERVER_DEFAULT_FIELDS}
    for key in _SERVER_PATHS & server.keys():
        server[key] = str(_path(file, (*where, key), server[key], folder))
    return server


def _path(file: SettingsFile, where: KeyPath, value: Any, folder: Path) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        file.fail(where, f"{dotted(where)} is {value!r}; expected the path of a file")
    try:
        return folder / Path(value).expanduser()
    except RuntimeError as error:
        file.fail(where, f"{dotted(where)} is {value!r}: {error}")


def _list(value: Any, field: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidValue(field, value, "a list of texts")
    return value


def _check_keys(
    file: SettingsFile, where: KeyPath, table: Mapping[str, Any], known: frozenset[str] | set[str]
) -> None:
    for key in table:
        if key not in known:
            file.fail((*where, key), f"[{dotted(where)}] {unknown_key(key, known)}")


def _checked(file: SettingsFile, where: KeyPath, make: Callable[[], T]) -> T:
    """Return what ``make`` makes; an error of the domain's becomes one at its line."""
    try:
        return make()
    except InvalidValue as error:
        field = error.field.partition("[")[0]
        file.fail((*where, field), f"{dotted(where)}: {error}")
