"""The layers, merged: flags over environment over file over defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs

from gglib.errors import ConfigurationError, InvalidValue
from gglib.settings.file import SettingsFile, unknown_key
from gglib.settings.values import GatewaySettings, LoadedSettings, Settings

__all__ = ["load_settings"]

_FILE_NAME = "gglib.toml"
_SECTIONS = ("engines", "gateway", "models", "runners")
_PREFIX = "GGLIB_GATEWAY_"
_FIELDS = {field.name: field for field in attrs.fields(GatewaySettings)}
_TRUTH = {"1": True, "true": True, "yes": True, "on": True} | {
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def load_settings(*, flags: Mapping[str, Any], environ: Mapping[str, str]) -> LoadedSettings:
    """Return the settings that hold, and where each comes from.

    ``flags``: what the command line said: ``data_dir``, ``config``, ``gateway.KEY``. A
    variable that is set to nothing counts as unset. The file is the one of ``--config``, else
    of ``GGLIB_CONFIG``, else ``gglib.toml`` in the data directory if it is there.

    Raises:
        ConfigurationError: a key is unknown, or a value, or the file, is wrong.
    """
    for key in flags:
        if key not in ("data_dir", "config") and key.removeprefix("gateway.") not in _FIELDS:
            raise ConfigurationError(unknown_key(key, _FIELDS), _flag(key))
    sources: dict[str, str] = {}
    data_dir = _data_dir(flags, environ, sources)
    file = _file(flags, environ, data_dir, sources)
    gateway = _gateway(flags, environ, file, sources)
    settings = Settings(data_dir=data_dir, gateway=gateway)
    if file is not None:
        settings = _with_file(settings, file, sources)
    return LoadedSettings(settings=settings, sources=MappingProxyType(sources))


def _flag(key: str) -> str:
    return "--" + key.rpartition(".")[2].replace("_", "-")


def _data_dir(
    flags: Mapping[str, Any], environ: Mapping[str, str], sources: dict[str, str]
) -> Path:
    if "data_dir" in flags:
        sources["data_dir"] = "flag --data-dir"
        return _absolute(flags["data_dir"], "--data-dir")
    if environ.get("GGLIB_HOME"):
        sources["data_dir"] = "environment GGLIB_HOME"
        return _absolute(environ["GGLIB_HOME"], "GGLIB_HOME")
    from platformdirs import user_data_path

    sources["data_dir"] = "default"
    return user_data_path("gglib", appauthor=False)


def _file(
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    data_dir: Path,
    sources: dict[str, str],
) -> SettingsFile | None:
    if "config" in flags:
        sources["config_file"] = "flag --config"
        return SettingsFile.read(_absolute(flags["config"], "--config"))
    if environ.get("GGLIB_CONFIG"):
        sources["config_file"] = "environment GGLIB_CONFIG"
        return SettingsFile.read(_absolute(environ["GGLIB_CONFIG"], "GGLIB_CONFIG"))
    sources["config_file"] = "default"
    path = data_dir / _FILE_NAME
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        pass  # There may be one: reading it tells what is wrong.
    return SettingsFile.read(path)


def _absolute(value: Path | str, source: str) -> Path:
    text = str(value)
    if not text or "\0" in text:
        raise ConfigurationError(f"{text!r} is not a path", source)
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise ConfigurationError(f"{text!r}: {error}", source) from None


def _gateway(
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    file: SettingsFile | None,
    sources: dict[str, str],
) -> GatewaySettings:
    values: dict[str, Any] = {}
    failures: dict[str, Callable[[str], ConfigurationError]] = {}
    for name in _FIELDS:
        sources[f"gateway.{name}"] = "default"
    if file is not None:
        _check_sections(file)
        table = file.table(("gateway",), file.data.get("gateway", {}))
        for name, value in table.items():
            if name not in _FIELDS:
                file.fail(("gateway", name), f"[gateway] {unknown_key(name, _FIELDS)}")
            values[name] = value
            sources[f"gateway.{name}"] = file.origin(("gateway", name))
            failures[name] = _at(str(file.path), file.line(("gateway", name)))
    for variable, text in environ.items():
        if not variable.startswith(_PREFIX):
            continue
        name = variable.removeprefix(_PREFIX).lower()
        if name not in _FIELDS or variable != variable.upper():
            known = [_PREFIX + field.upper() for field in _FIELDS]
            raise ConfigurationError(
                unknown_key(variable, known).replace("key", "variable", 1), "environment"
            )
        if text:
            values[name] = _parsed(str(_FIELDS[name].type), text)
            sources[f"gateway.{name}"] = f"environment {variable}"
            failures[name] = _at(variable, None)
    for key, value in flags.items():
        section, _, name = key.rpartition(".")
        if section:
            values[name] = value
            sources[key] = f"flag {_flag(key)}"
            failures[name] = _at(_flag(key), None)
    try:
        return GatewaySettings(**values)
    except InvalidValue as error:
        raise failures[error.field](f"gateway.{error}") from None


def _at(source: str, line: int | None) -> Callable[[str], ConfigurationError]:
    return lambda message: ConfigurationError(message, source, line)


def _check_sections(file: SettingsFile) -> None:
    for name in file.data:
        if name not in _SECTIONS:
            file.fail((name,), unknown_key(name, _SECTIONS))


def _parsed(kind: str, text: str) -> Any:
    """Return what a variable's ``text`` means for a field of type ``kind``.

    A text that means nothing is returned as it is: the field's own check explains.
    """
    if kind == "bool":
        return _TRUTH.get(text.strip().lower(), text)
    if kind.startswith("tuple"):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind == "str":
        return text
    if kind.endswith("None") and text.strip().lower() == "none":
        return None
    try:
        return int(text) if kind == "int" else float(text)
    except ValueError:
        return text


def _with_file(settings: Settings, file: SettingsFile, sources: dict[str, str]) -> Settings:
    sections: dict[str, Any] = {}
    for section in ("engines", "runners"):
        tables = file.table((section,), file.data.get(section, {}))
        sections[section] = MappingProxyType(
            {
                name: MappingProxyType(dict(file.table((section, name), table)))
                for name, table in tables.items()
            }
        )
    if "models" in file.data:
        from gglib.settings.models import declared_models

        sections["models"] = declared_models(file)
    _note_origins(file, sources)
    return attrs.evolve(settings, config_file=file.path, **sections)


def _note_origins(file: SettingsFile, sources: dict[str, str]) -> None:
    from gglib.settings.key_lines import dotted

    for section in ("engines", "models", "runners"):
        for name, table in file.data.get(section, {}).items():
            for key in table:
                path = (section, name, key)
                sources[dotted(path)] = file.origin(path)
