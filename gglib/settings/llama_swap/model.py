"""One model of llama-swap's: a command line, and what is done to its requests."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import attrs

from gglib.domain.model import ModelDefaults, Profile, check_alias
from gglib.errors import InvalidValue
from gglib.settings.key_lines import KeyPath
from gglib.settings.llama_swap.llama_command import LlamaCommand, read_llama_command
from gglib.settings.llama_swap.macros import MacroError, Macros
from gglib.settings.llama_swap.yaml_file import YamlFile

__all__ = ["ModelReading", "NotCarried"]

_PORT = "${PORT}"
_LOCAL = {"localhost", "127.0.0.1", "0.0.0.0", "::1", None}  # noqa: S104 - compared, not bound
_LEFT_OUT = {
    "name": "models have no name for show",
    "description": "models have no description",
    "metadata": "GET /v1/models tells what gglib knows",
    "unlisted": "every model is listed",
    "capabilities": "capabilities are read from the model's file",
    "unloadTimeout": "a server has 10 s to end",
    "compat": "WebSockets of /upstream hold their model",
    "timeouts": "[gateway] silence_timeout_s is the one limit",
    "cmdStop": "gglib ends the process group it has started: SIGTERM, and SIGKILL after 10 s",
}
_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)
_FILE_FLAGS = ("-m", "--model", "--model-path")


class NotCarried(Exception):
    """A model that cannot be served as it is said; ``key``: what says it."""

    def __init__(self, key: KeyPath, why: str) -> None:
        super().__init__(why)
        self.key = key
        self.why = why


class Leave(Protocol):
    """Takes note of what is left out."""

    def __call__(self, where: KeyPath, why: str) -> None: ...


@attrs.frozen
class ModelReading:
    """Reads the models of one file, and gathers the engines they need."""

    file: YamlFile
    macros: Macros
    engines: dict[str, Any]
    leave: Leave

    def read(self, name: str) -> tuple[str, dict[str, Any]]:
        """Return the model's name, and its section.

        Raises:
            NotCarried: it can't be served as it is said.
        """
        return _One(self, name).read()


class _One:
    def __init__(self, reading: ModelReading, name: str) -> None:
        self._reading = reading
        self._name = name
        self._where: KeyPath = ("models", name)
        table = reading.file.data["models"][name]
        if not isinstance(table, dict):
            raise NotCarried(self._where, "it is not a table")
        own = table.get("macros", {})
        macros = reading.macros.with_({"MODEL_ID": name})
        self._macros = macros.with_(own) if isinstance(own, dict) else macros
        self._table: Mapping[str, Any] = table
        self._section: dict[str, Any] = {}

    def read(self) -> tuple[str, dict[str, Any]]:
        table = self._table
        self._check_name(self._where, self._name)
        words = self._words()
        environment = self._environment()
        command = read_llama_command(words)
        if command is not None:
            self._llama_server(command, environment)
        else:
            self._any_server(words, environment)
        self._requests()
        here = self._name_here()
        aliases = self._aliases(here)
        if aliases:
            self._section["aliases"] = aliases
        for key, ours in (("ttl", "ttl_s"), ("concurrencyLimit", "concurrency_limit")):
            if key in table:
                self._number(key, ours)
        for key in table.keys() & _LEFT_OUT.keys():
            self._leave(key, _LEFT_OUT[key])
        if "sendLoadingState" in table:
            self._leave("sendLoadingState", "[gateway] loading_state is for all models")
        known = {"cmd", "macros", "env", "proxy", "checkEndpoint", "ttl", "useModelName", "filters",
                 "aliases", "concurrencyLimit", "sendLoadingState"}  # fmt: skip
        for key in table.keys() - known - _LEFT_OUT.keys():
            self._leave(key, "gglib has nothing like it")
        return here, self._section

    # The server

    def _words(self) -> list[str]:
        said = self._table.get("cmd")
        if not isinstance(said, str):
            raise NotCarried(self._where, "it has no cmd")
        # A comment may name macros, and a macro may have comments.
        text = str(self._expanded("cmd", _COMMENT.sub("", said)))
        text = re.sub(r"\\\r?\n", " ", _COMMENT.sub("", text))
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise NotCarried((*self._where, "cmd"), f"its cmd cannot be read: {error}") from None
        if not words:
            raise NotCarried((*self._where, "cmd"), "its cmd is empty")
        return words

    def _llama_server(self, command: LlamaCommand, environment: Mapping[str, str]) -> None:
        if command.model_path is None or "${" in command.model_path:
            raise NotCarried(
                (*self._where, "cmd"),
                "its cmd names no model file; `gglib model pull` fetches one of a repository",
            )
        section = self._section
        section["path"] = self._path("cmd", command.model_path)
        engine = self._engine_for(command.program)
        if engine is not None:
            section["engine"] = engine
        port = command.port
        if port is not None and port != _PORT:
            self._fixed_port("cmd", port)
        self._check_proxy()
        if self._table.get("checkEndpoint", "/health") != "/health":
            self._leave("checkEndpoint", "a llama-server is asked at /health")
        section |= command.server
        for field in ("mmproj_path", "slot_save_path"):
            if field in section:
                section[field] = self._path("cmd", section[field])
        extra = [self._without_port(word) for word in section.get("extra_args", ())]
        if extra:
            section["extra_args"] = extra
        if environment:
            section["environment"] = dict(environment)
        if command.inference:
            section["inference"] = dict(command.inference)

    def _engine_for(self, program: str) -> str | None:
        """Return the name of the engine that runs a binary; ``None``: the one that is found."""
        if program in {"llama-server", "llama-server.exe"}:
            return None
        path = program if "/" in program or "\\" in program else shutil.which(program)
        if path is None:
            self._leave("cmd", f"the program '{program}' is not there: the default engine is used")
            return None
        path = str(self._reading.file.path.parent / Path(path).expanduser())
        engines = self._reading.engines
        for name, engine in engines.items():
            if engine.get("kind", name) == "llama-server" and engine["path"] == path:
                return None if name == "llama-server" else name
        if "llama-server" not in engines:
            engines["llama-server"] = {"path": path}
            return None
        name = self._free_engine("llama-server")
        engines[name] = {"kind": "llama-server", "path": path}
        return name

    def _any_server(self, words: list[str], environment: Mapping[str, str]) -> None:
        command = [word.replace("{", "{{").replace("}", "}}") for word in words]
        command = [word.replace("${{PORT}}", "{port}") for word in command]
        if any("${{" in word for word in command):
            self._leave("cmd", "${PID} means nothing in a command")
        if not any("{port}" in word for word in command):
            self._check_proxy(needed=True)
        else:
            self._check_proxy()
        engine: dict[str, Any] = {"command": command}
        check = self._expanded("checkEndpoint", self._table.get("checkEndpoint", "/health"))
        if check == "none":
            self._leave("checkEndpoint", "without a path to ask, a server is never ready; /health")
        elif isinstance(check, str) and check.startswith("/"):
            if check != "/health":
                engine["health_path"] = check
        else:
            self._leave("checkEndpoint", f"{check!r} is not a path; /health is asked")
        if environment:
            engine["environment"] = dict(environment)
        name = self._free_engine(re.sub(r"[^A-Za-z0-9_-]+", "-", self._name).strip("-") or "engine")
        self._reading.engines[name] = engine
        self._section |= {"path": self._file_of(words), "engine": name}

    def _file_of(self, words: list[str]) -> str:
        """Return the file that a command names; else the folder: gglib wants to see something."""
        folder = self._reading.file.path.parent
        for flag, value in pairwise(words):
            if flag in _FILE_FLAGS and (folder / value).exists():
                return str(folder / value)
        return str(folder)

    def _free_engine(self, wanted: str) -> str:
        name, number = wanted, 2
        while name in self._reading.engines or name in {"embedded", "command"}:
            name, number = f"{wanted}-{number}", number + 1
        return name

    def _environment(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for item in self._list("env"):
            name, equals, value = str(item).partition("=")
            if equals and name:
                found[name] = value
            else:
                self._leave("env", f"'{item}' is not NAME=VALUE")
        return found

    def _check_proxy(self, *, needed: bool = False) -> None:
        """See where the server is said to listen."""
        said = self._table.get("proxy")
        if said is None:
            if needed:
                raise NotCarried((*self._where, "cmd"), "its cmd uses no ${PORT}, and has no proxy")
            return
        proxy = str(self._expanded("proxy", said))
        try:
            # A port that is yet to be chosen is none that a URL can have.
            url = urlsplit(proxy.replace(_PORT, "1"))
            port = None if _PORT in proxy else url.port
        except ValueError:
            raise NotCarried((*self._where, "proxy"), f"'{proxy}' is not a URL") from None
        if url.scheme != "http" or url.hostname not in _LOCAL or url.path not in {"", "/"}:
            raise NotCarried((*self._where, "proxy"), f"'{proxy}' is not a server on this machine")
        if port is not None:
            self._fixed_port("proxy", str(port))

    def _fixed_port(self, key: str, port: str) -> None:
        if not port.isdigit() or not 0 < int(port) < 65536:
            raise NotCarried((*self._where, key), f"'{port}' is not a port")
        if self._section.setdefault("port", int(port)) != int(port):
            raise NotCarried((*self._where, key), "its cmd and its proxy name different ports")

    def _without_port(self, word: str) -> str:
        if "${" in word:
            raise NotCarried((*self._where, "cmd"), f"'{word}' is filled in at its start")
        return word

    # Requests

    def _requests(self) -> None:
        filters = self._table.get("filters", {})
        if not isinstance(filters, dict):
            self._leave("filters", "it is not a table")
            return
        strip = str(self._expanded("filters", filters.get("stripParams") or ""))
        names = [name.strip() for name in strip.split(",") if name.strip() not in {"", "model"}]
        if names:
            self._said("filters", "strip", list(dict.fromkeys(names)), "strip_parameters")
        forced = self._parameters("setParams", filters.get("setParams"))
        for target, parameters in self._by_id(filters.get("setParamsByID")).items():
            if target == self._name:
                forced |= parameters
                continue
            base, colon, profile = target.rpartition(":")
            if colon and base == self._name:
                self._profile(profile, parameters)
            else:
                self._profile(target, parameters)
                why = f"as the profile {self._name}:{target}; no alias has parameters of its own"
                self._leave("filters", f"'{target}' is there {why}")
        if forced:
            self._said("filters", "set", forced, "set_parameters")
        for key in filters.keys() - {"stripParams", "setParams", "setParamsByID"}:
            self._leave("filters", f"gglib has nothing like {key}")

    def _by_id(self, said: Any) -> dict[str, dict[str, Any]]:
        if not isinstance(said, dict):
            return {}
        return {
            str(self._expanded("filters", target)): self._parameters("setParamsByID", parameters)
            for target, parameters in said.items()
        }

    def _parameters(self, key: str, said: Any) -> dict[str, Any]:
        if said is None:
            return {}
        if not isinstance(said, dict):
            self._leave("filters", f"{key} is not a table")
            return {}
        found = self._expanded("filters", said)
        dropped = [name for name, value in found.items() if name == "model" or _has_null(value)]
        for name in dropped:
            self._leave("filters", f"{key} cannot set '{name}'")
        return {name: value for name, value in found.items() if name not in dropped}

    def _profile(self, name: str, parameters: dict[str, Any]) -> None:
        if not parameters:
            return
        try:
            Profile(name=name, set_parameters=parameters)
        except InvalidValue as error:
            self._leave("filters", str(error))
            return
        self._section.setdefault("profiles", {})[name] = {"set": parameters}

    # Its name, and the rest

    def _name_here(self) -> str:
        """Return the name that the server is to be sent, if it minds."""
        said = self._table.get("useModelName")
        if not said or "engine" not in self._section:
            return self._name
        wanted = str(self._expanded("useModelName", said))
        try:
            check_alias(wanted)
        except InvalidValue as error:
            raise NotCarried((*self._where, "useModelName"), str(error)) from None
        return wanted

    def _aliases(self, here: str) -> list[str]:
        found = [] if here == self._name else [self._name]
        for item in self._list("aliases"):
            alias = item.get("id") if isinstance(item, dict) else item
            if not isinstance(alias, str):
                self._leave("aliases", f"{item!r} is not a name")
                continue
            try:
                check_alias(alias)
            except InvalidValue as error:
                self._leave("aliases", str(error))
                continue
            if alias != here:
                found.append(alias)
        return list(dict.fromkeys(found))

    def _number(self, key: str, ours: str) -> None:
        value = self._expanded(key, self._table[key])
        if value == {"ttl": -1, "concurrencyLimit": 0}[key]:
            return
        self._said(key, ours, value, ours)

    # The means

    def _said(self, key: str, ours: str, value: Any, field: str) -> None:
        """Take a value over, if it is right here."""
        try:
            ModelDefaults(**{field: value})
        except InvalidValue as error:
            self._leave(key, str(error))
            return
        self._section[ours] = value

    def _check_name(self, where: KeyPath, name: str) -> None:
        try:
            check_alias(name)
        except InvalidValue as error:
            raise NotCarried(where, str(error)) from None

    def _path(self, key: str, text: str) -> str:
        try:
            path = self._reading.file.path.parent / Path(text).expanduser()
            if not path.exists():
                self._leave(key, f"there is no file {path}")
        except (RuntimeError, ValueError, OSError) as error:
            raise NotCarried((*self._where, key), f"'{text[:200]}': {error}") from None
        return str(path)

    def _list(self, key: str) -> list[Any]:
        value = self._expanded(key, self._table.get(key) or [])
        if isinstance(value, list):
            return value
        self._leave(key, "it is not a list")
        return []

    def _expanded(self, key: str, value: Any) -> Any:
        try:
            return self._macros.expanded(value)
        except MacroError as error:
            raise NotCarried((*self._where, key), str(error)) from None

    def _leave(self, key: str, why: str) -> None:
        self._reading.leave((*self._where, key), why)


def _has_null(value: Any) -> bool:
    """Whether there is a null in it, which TOML has no way to write."""
    if isinstance(value, dict):
        return any(map(_has_null, value.values()))
    return value is None or (isinstance(value, list) and any(map(_has_null, value)))
