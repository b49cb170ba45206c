"""Any server at all, from a command template: vLLM, SGLang, whisper.cpp, a script."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs

from gglib.domain.config import ServerConfig
from gglib.domain.server_address import ServerAddress
from gglib.errors import ConfigurationError, EngineCannot, EngineNotFound, InvalidValue
from gglib.ports.context import AdapterContext
from gglib.ports.engine import Engine, EngineCapabilities, EngineProbe
from gglib_adapters.engines.settings import optional_text, refuse_unknown

__all__ = ["PLACEHOLDERS", "CommandEngine", "open_command_engine"]

#: What a template may name. ``{host}`` is always 127.0.0.1.
PLACEHOLDERS = ("model_path", "model_name", "port", "host", "context_size")

_SETTINGS = (
    "command",
    "environment",
    "health_path",
    "health_status",
    "working_directory",
    "api_key_variable",
    "answers_while_busy",
    "base_url",
    "ca_file",
)

_BASE_URL = "http://127.0.0.1:{port}"

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@attrs.frozen(kw_only=True)
class CommandSettings:
    """``[engines.NAME]`` of a command engine, checked."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    health_path: str
    health_statuses: frozenset[int]
    working_directory: Path | None
    api_key_variable: str | None
    answers_while_busy: bool
    base_url: str
    ca_file: str | None


class CommandEngine(Engine):
    """Runs a command template; knows of a configuration only what the template names."""

    __slots__ = ("_name", "_settings")

    def __init__(self, name: str, settings: CommandSettings) -> None:
        self._name = name
        self._settings = settings

    @property
    def name(self) -> str:
        """The name that models and settings use."""
        return self._name

    @property
    def capabilities(self) -> EngineCapabilities:
        """Nothing beyond answering: what the server can do besides is unknown here."""
        return EngineCapabilities(answers_while_busy=self._settings.answers_while_busy)

    @property
    def api_key_variable(self) -> str | None:
        """The variable by which its servers take an API key; ``None`` = they take none."""
        return self._settings.api_key_variable

    def base_url(self, port: int) -> str:
        """Return where a server on ``port`` is reached."""
        return _expand(self._settings.base_url, {"port": str(port)})

    @property
    def ca_file(self) -> str | None:
        """Whose certificates its servers have; ``None`` = whom the system trusts."""
        return self._settings.ca_file

    @property
    def health_path(self) -> str:
        """The path that tells whether a server is ready."""
        return self._settings.health_path

    @property
    def health_statuses(self) -> frozenset[int]:
        """The statuses of ``health_path`` that mean ready."""
        return self._settings.health_statuses

    @property
    def working_directory(self) -> Path | None:
        """Where its servers run; ``None`` = the data directory."""
        return self._settings.working_directory

    async def probe(self) -> EngineProbe:
        """Look for the command's first word, as the system would when it starts it.

        Raises:
            EngineNotFound: there is no such program, or no such working directory.
        """
        return await anyio.to_thread.run_sync(self._look)

    def _look(self) -> EngineProbe:
        directory = self._settings.working_directory
        if directory is not None and not directory.is_dir():
            raise EngineNotFound(
                self._name,
                f"working_directory {directory} is not a folder",
                (f"create it, or correct [engines.{self._name}]",),
            )
        word = self._settings.command[0]
        if _names(word):
            return EngineProbe(path=None, version=None, source="configuration")
        program = _expand(word, {})
        # A path with a folder in it is relative to where the server will run.
        rooted = os.path.dirname(program) and directory is not None  # noqa: PTH120
        found = shutil.which(str(directory / program) if directory and rooted else program)
        if found is None:
            raise EngineNotFound(
                self._name,
                f"its command's program '{program}' is not there or not executable",
                (f"install it, or correct command under [engines.{self._name}]",),
            )
        return EngineProbe(path=Path(found).absolute(), version=None, source="configuration")

    def command(self, config: ServerConfig, port: int) -> list[str]:
        """Return the template, filled in, and ``config.extra_args`` after it.

        Raises:
            EngineCannot: ``config`` sets something that the template does not name, or the
                template names ``{context_size}`` and ``config`` sets none: an argument
                that its server expects is not left out silently.
        """
        named = {name for word in self._settings.command for name in _names(word)}
        for name, value in config.intents.items():
            if name not in named:
                remedy = "put what the server needs into its command"
                raise EngineCannot(self._name, name, value, remedy)
        if "context_size" in named and config.context_size is None:
            raise EngineCannot(
                self._name, "context_size", None, "its command names it: set it for the model"
            )
        values = {
            "model_path": str(config.model_path),
            "model_name": config.model_name,
            "port": str(port),
            "host": "127.0.0.1",
            "context_size": str(config.context_size),
        }
        return [*(_expand(word, values) for word in self._settings.command), *config.extra_args]

    def environment(self, config: ServerConfig) -> Mapping[str, str]:
        """Return the configured variables."""
        del config
        return self._settings.environment


def _names(word: str) -> list[str]:
    return [match[1] for match in _TOKEN.finditer(word) if match[1] is not None]


def _expand(word: str, values: Mapping[str, str]) -> str:
    def one(match: re.Match[str]) -> str:
        return match[0][0] if match[1] is None else values[match[1]]

    return _TOKEN.sub(one, word)


def _template(engine: str, value: object) -> tuple[str, ...]:
    where = f"[engines.{engine}] command"
    if isinstance(value, str):
        try:
            value = shlex.split(value)
        except ValueError as problem:
            raise ConfigurationError(f"{where} cannot be split into words: {problem}") from problem
    if not isinstance(value, list | tuple) or not value or not value[0]:
        raise ConfigurationError(f"{where} is {value!r}; expected a list of texts, or a text")
    for word in value:
        if not isinstance(word, str) or "\0" in word:
            raise ConfigurationError(f"{where} has {word!r} in it; expected texts")
        for match in _TOKEN.finditer(word):
            if match[0] in {"{", "}"}:
                raise ConfigurationError(
                    f"{where}: a single '{match[0]}' in '{word}'; write '{match[0] * 2}' for one"
                )
            if match[1] is not None and match[1] not in PLACEHOLDERS:
                known = " ".join(f"{{{name}}}" for name in PLACEHOLDERS)
                raise ConfigurationError(
                    f"{where}: unknown placeholder '{match[0]}' in '{word}'; known: {known}"
                )
    return tuple(value)


def _statuses(engine: str, value: object) -> frozenset[int]:
    values = value if isinstance(value, list | tuple) else [value]
    if not values or not all(type(each) is int and 100 <= each <= 599 for each in values):
        raise ConfigurationError(
            f"[engines.{engine}] health_status is {value!r}; expected a status from 100 to 599, "
            "or a list of them"
        )
    return frozenset(values)


def _environment(engine: str, value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"[engines.{engine}] environment is {value!r}; expected a table")
    for name, content in value.items():
        if not _plain(name) or not isinstance(content, str) or "\0" in content:
            raise ConfigurationError(
                f"[engines.{engine}] environment has {name!r} = {content!r}; expected a text"
            )
    return dict(value)


def _plain(name: object) -> bool:
    return isinstance(name, str) and bool(name) and not set("=\0") & set(name)


def _base_url(engine: str, settings: Mapping[str, Any]) -> str:
    """Return the template of a base URL, which has to be one whatever the port."""
    template = optional_text(engine, settings, "base_url") or _BASE_URL
    expected = "expected such as 'https://localhost:{port}', with the one placeholder {port}"
    if _names(template) != ["port"]:
        raise ConfigurationError(f"[engines.{engine}] base_url is '{template}'; {expected}")
    try:
        address = ServerAddress.parse(_expand(template, {"port": "8080"}))
    except InvalidValue:
        address = None
    if address is None or address.port != 8080:
        raise ConfigurationError(f"[engines.{engine}] base_url is '{template}'; {expected}")
    return template


def _checked(engine: str, settings: Mapping[str, Any]) -> CommandSettings:
    refuse_unknown(engine, settings, _SETTINGS)
    if "command" not in settings:
        raise ConfigurationError(f"[engines.{engine}] has no command; a command engine needs one")
    health_path = optional_text(engine, settings, "health_path") or "/health"
    if not health_path.startswith("/"):
        raise ConfigurationError(
            f"[engines.{engine}] health_path is '{health_path}'; begin it with '/'"
        )
    directory = optional_text(engine, settings, "working_directory")
    ca_file = optional_text(engine, settings, "ca_file")
    variable = optional_text(engine, settings, "api_key_variable")
    if variable is not None and not _plain(variable):
        raise ConfigurationError(
            f"[engines.{engine}] api_key_variable is '{variable}'; expected a variable's name"
        )
    busy = settings.get("answers_while_busy", False)
    if not isinstance(busy, bool):
        raise ConfigurationError(
            f"[engines.{engine}] answers_while_busy is {busy!r}; expected true or false"
        )
    return CommandSettings(
        command=_template(engine, settings["command"]),
        environment=_environment(engine, settings.get("environment", {})),
        health_path=health_path,
        health_statuses=_statuses(engine, settings.get("health_status", 200)),
        working_directory=Path(directory).expanduser().absolute() if directory else None,
        api_key_variable=variable,
        answers_while_busy=busy,
        base_url=_base_url(engine, settings),
        ca_file=str(Path(ca_file).expanduser().absolute()) if ca_file else None,
    )


@asynccontextmanager
async def open_command_engine(context: AdapterContext) -> AsyncIterator[Engine]:
    """Open a command engine.

    Settings: ``command`` (a list of texts, or one text that is split like a shell's line,
    with the placeholders of ``PLACEHOLDERS``; ``{{`` and ``}}`` stand for braces),
    ``environment`` (a table of texts), ``health_path`` (``/health``), ``health_status``
    (200; one or a list), ``working_directory``, ``api_key_variable``,
    ``answers_while_busy``, ``base_url`` (``http://127.0.0.1:{port}``), ``ca_file``.

    Raises:
        ConfigurationError: a setting is missing, unknown or wrong.
    """
    yield CommandEngine(context.name, _checked(context.name, context.settings))
