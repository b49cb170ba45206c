"""A configuration of llama-swap, said in ours; and what of it cannot be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from gglib.errors import InvalidValue
from gglib.settings.key_lines import KeyPath
from gglib.settings.llama_swap.macros import MacroError, Macros
from gglib.settings.llama_swap.matrix import MatrixError, expand_sets
from gglib.settings.llama_swap.model import ModelReading, NotCarried
from gglib.settings.llama_swap.yaml_file import YamlFile
from gglib.settings.values import GatewaySettings, PoolSettings

__all__ = ["LeftOut", "Translated", "translate"]

#: Keys that decide nothing here, and why.
_LEFT_OUT = {
    "logLevel": "gglib logs events, not levels",
    "logTimeFormat": "gglib's log has one form",
    "logToStdout": "what servers print is shown by `gglib logs NAME`",
    "store": "gglib keeps no list of requests; [gateway] access_log writes a line for each",
    "metricsMaxInMemory": "gglib counts, and keeps no list of requests",
    "captureBuffer": "gglib keeps no requests",
    "ui": "it is llama-swap's own",
    "performance": "it is llama-swap's own; GET /metrics tells",
    "startPort": "ports are the system's to choose; base_port of a model says where to look",
    "includeAliasesInList": "GET /v1/models lists each model once, with its aliases",
    "unloadTimeout": "a server has 10 s to end",
    "tailcat": "it is llama-swap's own",
    "upstream": "/upstream/MODEL starts the model for every path",
    "profiles": "aliases of models do what pins do, but are not switched at run time",
    "selectors": "replicas of a model share a line; no name stands for several models",
    "peers": "gglib does not relay to other gateways",
    "config": "it is llama-swap's own",
}
_OF_ROUTING = {"router", "scheduler"}


@attrs.frozen
class LeftOut:
    """Something that has no place in our settings."""

    key: str
    line: int | None
    why: str
    is_model: bool = False
    """Whether a whole model is left out."""


@attrs.frozen
class Translated:
    """Settings, as plain data in the form of our file; what is left out, by line."""

    settings: Mapping[str, Any]
    left_out: tuple[LeftOut, ...]


def translate(file: YamlFile, environ: Mapping[str, str]) -> Translated:
    """Return what a configuration of llama-swap comes to."""
    return _Translation(file, environ).whole()


class _Translation:
    def __init__(self, file: YamlFile, environ: Mapping[str, str]) -> None:
        self._file = file
        self._macros = Macros({}, environ)
        self._left_out: list[LeftOut] = []
        self._gateway: dict[str, Any] = {}
        self._pool: dict[str, Any] = {}
        self._routing: dict[str, Any] = {}
        self._engines: dict[str, Any] = {}
        self._models: dict[str, dict[str, Any]] = {}
        self._names: dict[str, str] = {}
        """What a model is called there, and here."""

    def whole(self) -> Translated:
        data = self._file.data
        self._macros = self._macros.with_(self._table(("macros",)))
        readers: dict[str, Callable[[], None]] = {
            "macros": lambda: None,
            "models": self._read_models,
            "healthCheckTimeout": lambda: self._plain(
                "healthCheckTimeout", self._gateway, "start_timeout_s", GatewaySettings
            ),
            "sendLoadingState": lambda: self._plain(
                "sendLoadingState", self._gateway, "loading_state", GatewaySettings
            ),
            "apiKeys": lambda: self._plain("apiKeys", self._gateway, "api_keys", GatewaySettings),
            "globalTTL": lambda: self._plain("globalTTL", self._pool, "ttl_s", PoolSettings),
            "groups": lambda: self._read_groups(("groups",)),
            "matrix": lambda: self._read_matrix(("matrix",)),
            "routing": self._read_routing,
            "hooks": self._read_hooks,
        }
        # Models first: the rest names them.
        for key in sorted(data, key=lambda key: key != "models"):
            if key in readers:
                readers[key]()
            else:
                self._leave((key,), _LEFT_OUT.get(key, "gglib has nothing like it"))
        if self._models:
            # One model at a time is what llama-swap does that is told nothing.
            self._routing.setdefault("planner", "exclusive")
            if len(self._models) > PoolSettings().max_size:
                self._pool["max_size"] = len(self._models)
        sections = {
            "gateway": self._gateway,
            "pool": self._pool,
            "routing": self._routing,
            "engines": self._engines,
            "models": self._models,
        }
        left_out = sorted(self._left_out, key=lambda each: each.line or 0)
        return Translated({name: each for name, each in sections.items() if each}, tuple(left_out))

    # Models

    def _read_models(self) -> None:
        taken: set[str] = set()
        reading = ModelReading(self._file, self._macros, self._engines, self._leave)
        for name in self._table(("models",)):
            try:
                here, model = reading.read(name)
                while here in self._models or here in taken:
                    raise NotCarried(("models", name), f"the name '{here}' is taken")
            except NotCarried as error:
                self._leave(error.key, f"the model '{name}' is left out: {error.why}", model=True)
                continue
            aliases = [each for each in model.get("aliases", ()) if each not in taken]
            taken.update((here, *aliases))
            if aliases:
                model["aliases"] = aliases
            self._names[name] = here
            self._models[here] = model

    # Which models run together

    def _read_routing(self) -> None:
        routing = self._table(("routing",))
        for key in routing.keys() - _OF_ROUTING:
            self._leave(("routing", key), "gglib has nothing like it")
        router = self._table(("routing", "router"))
        where = ("routing", "router", "settings")
        settings = self._table(where)
        used = router.get("use", "group")
        for kind, key, read in (
            ("group", "groups", self._read_groups),
            ("matrix", "matrix", self._read_matrix),
        ):
            if key not in settings:
                continue
            if used == kind:
                read((*where, key))
            else:
                self._leave((*where, key), f"its router is '{used}'")
        fifo = ("routing", "scheduler", "settings", "fifo")
        for name, priority in self._table((*fifo, "priority")).items():
            here = self._here((*fifo, "priority", name), name)
            if here is None:
                continue
            if type(priority) is int and -1000 <= priority <= 1000:
                self._models[here]["priority"] = priority
            else:
                self._leave((*fifo, "priority", name), "a priority is -1000 to 1000 here")

    def _read_groups(self, where: KeyPath) -> None:
        groups: dict[str, Any] = {}
        for name, table in self._table(where).items():
            group = table if isinstance(table, dict) else {}
            members = self._all_here((*where, name, "members"), group.get("members"))
            if not members:
                self._leave((*where, name), "it has no members")
                continue
            groups[name] = {"members": members}
            for key, value in group.items():
                if key in {"swap", "exclusive", "persistent"} and isinstance(value, bool):
                    groups[name][key] = value
                elif key != "members":
                    self._leave((*where, name, key), "gglib has nothing like it")
        if groups:
            self._routing |= {"planner": "groups", "groups": groups}

    def _read_matrix(self, where: KeyPath) -> None:
        matrix = self._table(where)
        named = self._table((*where, "vars"))
        expressions = {
            name: text if isinstance(text, str) else ""
            for name, text in self._table((*where, "sets")).items()
        }
        sets: list[list[str]] = []
        for name in expressions:
            here = (*where, "sets", name)
            try:
                found = expand_sets(expressions, name)
            except MatrixError as error:
                self._leave(here, str(error))
                continue
            for each in found:
                members = [self._here(here, str(named.get(one, one))) for one in each]
                if members and all(members) and members not in sets:
                    sets.append([member for member in members if member is not None])
        costs: dict[str, float] = {}
        for name, cost in self._table((*where, "evict_costs")).items():
            here_name = self._here((*where, "evict_costs", name), str(named.get(name, name)))
            if here_name is None:
                continue
            if isinstance(cost, int | float) and not isinstance(cost, bool) and cost >= 0:
                costs[here_name] = cost
            else:
                self._leave((*where, "evict_costs", name), "a cost is a number of 0 or more")
        for key in matrix.keys() - {"vars", "sets", "evict_costs"}:
            self._leave((*where, key), "gglib has nothing like it")
        if sets:
            said: dict[str, Any] = {"sets": sets}
            self._routing |= {
                "planner": "matrix",
                "matrix": said | ({"costs": costs} if costs else {}),
            }

    def _read_hooks(self) -> None:
        hooks = self._table(("hooks",))
        for key in hooks.keys() - {"on_startup"}:
            self._leave(("hooks", key), "gglib has nothing like it")
        where = ("hooks", "on_startup")
        startup = self._table(where)
        for key in startup.keys() - {"preload"}:
            self._leave((*where, key), _LEFT_OUT["profiles"])
        warmup = self._all_here((*where, "preload"), startup.get("preload", []))
        if warmup:
            self._pool["warmup"] = warmup

    # The means

    def _plain(self, key: str, section: dict[str, Any], field: str, kind: type[Any]) -> None:
        """Take one value over, if it is right there."""
        try:
            value = self._macros.expanded(self._file.data[key])
            kind(**{field: value})
        except (MacroError, InvalidValue) as error:
            self._leave((key,), str(error))
            return
        if value != attrs.fields_dict(kind)[field].default and not (field == "ttl_s" and not value):
            section[field] = value

    def _table(self, where: KeyPath) -> Mapping[str, Any]:
        """Return the table at ``where``: an empty one if there is none."""
        value: Any = self._file.data
        for key in where:
            value = value.get(str(key)) if isinstance(value, dict) else None
        if value is None or isinstance(value, dict):
            return value or {}
        self._leave(where, "it is not a table")
        return {}

    def _here(self, where: KeyPath, name: str) -> str | None:
        """Return what a model is called here."""
        found = self._names.get(name)
        if found is None:
            self._leave(where, f"there is no model '{name}'")
        return found

    def _all_here(self, where: KeyPath, names: Any) -> list[str]:
        said = names if isinstance(names, list) else []
        found = (self._here(where, str(name)) for name in said)
        return [name for name in found if name is not None]

    def _leave(self, where: KeyPath, why: str, *, model: bool = False) -> None:
        key = ".".join(map(str, where))
        left = LeftOut(key, self._file.line(where), why, model)
        if left not in self._left_out:
            self._left_out.append(left)
