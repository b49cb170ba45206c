"""The layers, merged: flags over environment over file over defaults."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import attrs

from gglib.domain.inference import InferenceConfig
from gglib.errors import ConfigurationError, InvalidValue
from gglib.settings.file import SettingsFile, unknown_key
from gglib.settings.values import (
    GatewaySettings,
    LoadedSettings,
    PoolSettings,
    RoutingSettings,
    ServingSettings,
    Settings,
)

__all__ = ["find_data_dir", "find_settings_file", "load_settings"]

_FILE_NAME = "gglib.toml"
#: Sections of adapters, whose keys are the adapters' own.
_ADAPTERS = ("engines", "runners", "sources")
_PLAIN = {
    "gateway": GatewaySettings,
    "serving": ServingSettings,
    "routing": RoutingSettings,
    "pool": PoolSettings,
    "inference": InferenceConfig,
}
_SECTIONS = (*_PLAIN, "models", *_ADAPTERS)
_FLAGS = {
    f"{section}.{field.name}" for section, kind in _PLAIN.items() for field in attrs.fields(kind)
} | {"config", "data_dir"}
#: What stands between a field and the part of it that is wrong.
_FIELD = re.compile(r"[.\[]")
_TRUTH = {"1": True, "true": True, "yes": True, "on": True} | {
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


T = TypeVar("T")

#: A key, its value, where it was said, and how to make an error about it.
_Said = tuple[str, Any, str, Callable[[str], ConfigurationError]]


def load_settings(*, flags: Mapping[str, Any], environ: Mapping[str, str]) -> LoadedSettings:
    """Return the settings that hold, and where each comes from.

    ``flags``: what the command line said: ``data_dir``, ``config``, ``SECTION.KEY``. A
    variable that is set to nothing counts as unset. The file is the one of ``--config``, else
    of ``GGLIB_CONFIG``, else ``gglib.toml`` in the data directory if it is there.

    Raises:
        ConfigurationError: a key is unknown, or a value, or the file, is wrong.
    """
    for key in flags:
        if key not in _FLAGS:
            raise ConfigurationError(unknown_key(key, _FLAGS), _flag(key))
    sources: dict[str, str] = {}
    data_dir, sources["data_dir"] = find_data_dir(flags, environ)
    path, sources["config_file"] = find_settings_file(flags, environ, data_dir)
    file = _file(path, needed=sources["config_file"] != "default")
    if file is not None:
        _check_sections(file)
    layers = _Layers(flags, environ, file, sources)
    settings = Settings(
        data_dir=data_dir,
        gateway=layers.placed(layers.section("gateway", GatewaySettings)),
        serving=layers.section("serving", ServingSettings),
        routing=layers.section("routing", RoutingSettings),
        pool=layers.section("pool", PoolSettings),
        inference=layers.section("inference", InferenceConfig),
    )
    _check_planner(settings, layers)
    if file is not None:
        settings = _with_file(settings, file, sources)
    return LoadedSettings(settings=settings, sources=MappingProxyType(sources))


def _flag(key: str) -> str:
    return "--" + key.rpartition(".")[2].replace("_", "-")


def find_data_dir(flags: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[Path, str]:
    """Return the data directory, and where it was said.

    Raises:
        ConfigurationError: what was said is no path.
    """
    if "data_dir" in flags:
        return _absolute(flags["data_dir"], "--data-dir"), "flag --data-dir"
    if environ.get("GGLIB_HOME"):
        return _absolute(environ["GGLIB_HOME"], "GGLIB_HOME"), "environment GGLIB_HOME"
    from platformdirs import user_data_path

    return user_data_path("gglib", appauthor=False), "default"


def find_settings_file(
    flags: Mapping[str, Any], environ: Mapping[str, str], data_dir: Path
) -> tuple[Path, str]:
    """Return where the settings file is looked for, there or not, and where that was said.

    Raises:
        ConfigurationError: what was said is no path.
    """
    if "config" in flags:
        return _absolute(flags["config"], "--config"), "flag --config"
    if environ.get("GGLIB_CONFIG"):
        return _absolute(environ["GGLIB_CONFIG"], "GGLIB_CONFIG"), "environment GGLIB_CONFIG"
    return data_dir / _FILE_NAME, "default"


def _file(path: Path, *, needed: bool) -> SettingsFile | None:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        if not needed:
            return None
    except (OSError, ValueError):
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


@attrs.frozen
class _Layers:
    """Where the values of a section may be said, and where each was: ``sources``."""

    flags: Mapping[str, Any]
    environ: Mapping[str, str]
    file: SettingsFile | None
    sources: dict[str, str]

    def section(self, section: str, kind: type[T]) -> T:
        """Return the section that all layers make, the strongest last."""
        fields: dict[str, Any] = attrs.fields_dict(kind)  # type: ignore[arg-type]
        values: dict[str, Any] = {}
        failures: dict[str, Callable[[str], ConfigurationError]] = {}
        for name in fields:
            self.sources[f"{section}.{name}"] = "default"
        for layer in (self._in_file, self._in_environment, self._in_flags):
            for name, value, source, failure in layer(section, fields):
                values[name] = value
                self.sources[f"{section}.{name}"] = source
                failures[name] = failure
        try:
            return kind(**values)
        except InvalidValue as error:
            field = _FIELD.split(error.field, maxsplit=1)[0]
            raise failures[field](f"{section}.{error}") from None

    def placed(self, values: GatewaySettings) -> GatewaySettings:
        """Return ``values`` with absolute paths: those in the file start from its folder."""
        paths: dict[str, Any] = {}
        for field in attrs.fields(GatewaySettings):
            path = getattr(values, field.name)
            if isinstance(path, Path):
                in_file = self.sources[f"gateway.{field.name}"].startswith("file")
                folder = self.file.path.parent if in_file and self.file is not None else Path.cwd()
                paths[field.name] = folder / path
        return attrs.evolve(values, **paths)

    def failure(self, section: str, key: str) -> Callable[[str], ConfigurationError]:
        """Return how to make an error about a value that was said, or should have been."""
        source = self.sources.get(f"{section}.{key}", "default")
        if self.file is not None and source.startswith(("file", "default")):
            return _at(str(self.file.path), self.file.line((section, key)))
        return _at(source.partition(" ")[2] or source, None)

    def _in_file(self, section: str, fields: Mapping[str, Any]) -> Iterator[_Said]:
        file = self.file
        if file is None:
            return
        for name, value in file.table((section,), file.data.get(section, {})).items():
            path = (section, name)
            if name not in fields:
                file.fail(path, f"[{section}] {unknown_key(name, fields)}")
            yield name, value, file.origin(path), _at(str(file.path), file.line(path))

    def _in_environment(self, section: str, fields: Mapping[str, Any]) -> Iterator[_Said]:
        prefix = f"GGLIB_{section.upper()}_"
        for variable, text in self.environ.items():
            if not variable.startswith(prefix):
                continue
            name = variable.removeprefix(prefix).lower()
            if name not in fields or variable != variable.upper():
                known = [prefix + field.upper() for field in fields]
                raise ConfigurationError(
                    unknown_key(variable, known).replace("key", "variable", 1), "environment"
                )
            if text:
                value = _parsed(str(fields[name].type), text)
                yield name, value, f"environment {variable}", _at(variable, None)

    def _in_flags(self, section: str, fields: Mapping[str, Any]) -> Iterator[_Said]:
        for name in fields:
            key = f"{section}.{name}"
            if key in self.flags:
                yield name, self.flags[key], f"flag {_flag(key)}", _at(_flag(key), None)


def _check_planner(settings: Settings, layers: _Layers) -> None:
    """Refuse what no planner can be made of, and what the chosen one does not heed."""
    routing = settings.routing
    if routing == RoutingSettings():
        return
    from gglib.services.routing.planning import PLANNER_KEYS, planner_for

    for planner, key in PLANNER_KEYS.items():
        if getattr(routing, key) and routing.planner != planner:
            message = (
                f"routing.{key} has no effect with planner = '{routing.planner}'; "
                f"it is for planner = '{planner}'"
            )
            raise layers.failure("routing", key)(message)
    try:
        planner_for(routing, settings.pool, {})
    except InvalidValue as error:
        key = error.field.partition("[")[0].partition(".")[0]
        section = "pool" if key == "max_size" else "routing"
        raise layers.failure(section, key)(f"{section}.{error}") from None


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
    if kind.startswith("bool"):
        return _TRUTH.get(text.strip().lower(), text)
    if kind.startswith("tuple"):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind.startswith("str"):
        return text
    if kind.endswith("None") and text.strip().lower() == "none":
        return None
    try:
        return int(text) if kind.startswith("int") else float(text)
    except ValueError:
        return text


def _with_file(settings: Settings, file: SettingsFile, sources: dict[str, str]) -> Settings:
    sections: dict[str, Any] = {}
    for section in _ADAPTERS:
        tables = file.table((section,), file.data.get(section, {}))
        sections[section] = MappingProxyType(
            {name: _adapter_section(file, (section, name), table) for name, table in tables.items()}
        )
    if "models" in file.data:
        from gglib.settings.models import declared_models

        sections["models"] = declared_models(file)
    _note_origins(file, sources)
    return attrs.evolve(settings, config_file=file.path, **sections)


def _adapter_section(file: SettingsFile, path: tuple[str, str], value: Any) -> Mapping[str, Any]:
    section, name = path
    table = file.table(path, value)
    kind = table.get("kind", name)
    if not isinstance(kind, str) or not kind:
        where = f"{section}.{name}.kind"
        file.fail((*path, "kind"), f"{where} is {kind!r}; expected the name of an installed one")
    if section == "sources":
        _check_source(file, path, table)
    return MappingProxyType(dict(table))


def _check_source(file: SettingsFile, path: tuple[str, str], table: Mapping[str, Any]) -> None:
    from gglib.services.sources import FILES, check_source_name

    name = path[1]
    if name == FILES:
        if table.get("kind", FILES) == FILES:
            file.fail(path, "[sources.file] needs a kind: the source of files has no settings")
        return
    try:
        check_source_name(name)
    except InvalidValue as error:
        file.fail(path, f"sources: {error}")


def _note_origins(file: SettingsFile, sources: dict[str, str]) -> None:
    from gglib.settings.key_lines import dotted

    for section in ("models", *_ADAPTERS):
        for name, table in file.data.get(section, {}).items():
            sources[dotted((section, name))] = file.origin((section, name))
            for key in table:
                path = (section, name, key)
                sources[dotted(path)] = file.origin(path)
