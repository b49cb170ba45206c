"""llama.cpp's own server, ``llama-server``: found, asked once, and spelled to."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from gglib.domain.config import ServerConfig
from gglib.errors import EngineNotFound
from gglib.ports.context import AdapterContext
from gglib.ports.engine import Engine, EngineCapabilities, EngineProbe
from gglib_adapters.engines.llama_flags import ENVIRONMENT, build_argv
from gglib_adapters.engines.llama_help import KnownFlags, parse_help
from gglib_adapters.engines.llama_probe import Binary, ProbeFailed, describe
from gglib_adapters.engines.settings import optional_text, refuse_unknown
from gglib_adapters.engines.versions import Versions

__all__ = ["INSTALLED_AS", "PATH_VARIABLE", "WAYS", "LlamaServerEngine", "open_llama_server_engine"]

#: Names a llama-server binary; stronger than ``PATH``, weaker than the setting.
PATH_VARIABLE = "GGLIB_LLAMA_SERVER"

#: Under this name `engine install` keeps it, whatever a section calls it.
INSTALLED_AS = "llama-server"

#: How to get an engine, simplest first.
WAYS = (
    "gglib engine install fetches one",
    "pip install 'gglib[llama]' brings one that needs no binary",
    "put llama-server on PATH",
    f"set {PATH_VARIABLE}, or path under [engines.llama-server], to a llama-server binary",
    "declare a command engine for a server of your own",
)

_BINARY = "llama-server.exe" if os.name == "nt" else "llama-server"


class LlamaServerEngine(Engine):
    """Serves GGUF models with a llama-server binary of any age that has the flags needed.

    Servers take their API key from ``LLAMA_API_KEY``.
    Source: llama-server --help, builds of August 2025 and 11434.
    """

    __slots__ = ("_binary", "_data_dir", "_flags", "_name", "_setting", "_spellings")

    def __init__(self, name: str, data_dir: Path, path: str | None) -> None:
        self._name = name
        self._data_dir = data_dir
        self._setting = path
        self._binary: Binary | None = None
        self._flags = KnownFlags({})
        self._spellings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name that models and settings use."""
        return self._name

    @property
    def capabilities(self) -> EngineCapabilities:
        """What its servers can do: everything, until the probed binary knows less."""
        if self._binary is None:
            return EngineCapabilities(
                slots=True,
                lora=True,
                embeddings=True,
                metrics=True,
                context_size=True,
                prompt_cache=True,
                answers_while_busy=True,
            )
        return EngineCapabilities(
            slots="--slot-save-path" in self._flags,
            lora="--lora-scaled" in self._flags,
            embeddings=self._flags.first("--embeddings", "--embedding") is not None,
            metrics="--metrics" in self._flags,
            context_size="--ctx-size" in self._flags,
            answers_while_busy=True,
        )

    @property
    def api_key_variable(self) -> str | None:
        """The variable by which its servers take an API key."""
        return "LLAMA_API_KEY"

    def environment(self, config: ServerConfig) -> Mapping[str, str]:
        """Return what its servers need beside ``config.environment``."""
        del config
        return ENVIRONMENT

    async def probe(self) -> EngineProbe:
        """Find the binary and read its ``--help``.

        Looks at the setting ``path``, ``GGLIB_LLAMA_SERVER``, ``PATH`` and the managed
        installation, in that order. A setting or variable that leads nowhere is an error:
        nothing else is taken instead.

        Raises:
            EngineNotFound: no binary, or one that cannot be used; carries the ways.
        """
        path, source = self._locate()
        try:
            binary = await describe(path, self._data_dir / "cache")
        except ProbeFailed as problem:
            raise EngineNotFound(self._name, f"{problem} (from {source})", WAYS) from problem
        if binary != self._binary:
            self._flags = parse_help(binary.help_text)
            self._spellings = tuple(sorted(self._flags.options))
            self._binary = binary
        return EngineProbe(path=path, version=binary.version, source=source, flags=self._spellings)

    def elsewhere(self, node: str, path: str, help_text: str) -> Engine:
        """Return this engine with the binary at ``path`` of another machine.

        Raises:
            EngineNotFound: its ``--help`` is not that of a llama-server.
        """
        flags = parse_help(help_text)
        if "--model" not in flags or "--port" not in flags:
            first = next((line for line in help_text.splitlines() if line.strip()), "nothing")
            reason = f"{path} on {node} is not a llama-server we know; its --help: {first[:200]}"
            raise EngineNotFound(self._name, reason, (f"install llama.cpp on {node}",))
        return _FarLlamaServer(self._name, path, help_text, flags)

    def command(self, config: ServerConfig, port: int) -> list[str]:
        """Return the argument vector in this binary's spelling.

        Raises:
            EngineCannot: the binary has no flag for an intent of ``config``.
            EngineNotFound: ``probe`` has not found it.
        """
        if self._binary is None:
            raise EngineNotFound(self._name, "it has not been probed", WAYS)
        return build_argv([str(self._binary.path)], config, port, self._flags, engine=self._name)

    def _locate(self) -> tuple[Path, str]:
        named = (("setting", self._setting), (PATH_VARIABLE, os.environ.get(PATH_VARIABLE)))
        for source, value in named:
            if value:
                return self._executable(value, source), source
        if found := shutil.which(_BINARY):
            return Path(found).absolute(), "PATH"
        installed = Versions.of(INSTALLED_AS, self._data_dir).current()
        if installed is not None and os.access(installed.path, os.X_OK):
            return installed.path, "installed"
        raise EngineNotFound(self._name, f"no {_BINARY} on PATH and none installed", WAYS)

    def _executable(self, value: str, source: str) -> Path:
        path = Path(value).expanduser().absolute()
        what = "the setting 'path'" if source == "setting" else source
        if not path.exists():
            reason = f"{what} names {path}, which does not exist"
        elif not path.is_file():
            reason = f"{what} names {path}, which is not a file"
        elif not os.access(path, os.X_OK):
            reason = f"{what} names {path}, which is not executable"
        else:
            return path
        raise EngineNotFound(self._name, reason, WAYS)


class _FarLlamaServer(LlamaServerEngine):
    """A llama-server of another machine: what is known of it was told."""

    __slots__ = ("_path",)

    def __init__(self, name: str, path: str, help_text: str, flags: KnownFlags) -> None:
        super().__init__(name, Path(), None)
        self._path = Path(path)
        self._binary = Binary(self._path, 0, 0, None, help_text)
        self._flags = flags

    async def probe(self) -> EngineProbe:
        """Return what was told."""
        return EngineProbe(path=self._path, version=None, source="runner")


@asynccontextmanager
async def open_llama_server_engine(context: AdapterContext) -> AsyncIterator[Engine]:
    """Open the engine. Settings: ``path``, the binary to use; ``release_url`` is the installer's.

    Raises:
        ConfigurationError: a setting is unknown or not a text.
    """
    refuse_unknown(context.name, context.settings, {"path", "release_url"})
    path = optional_text(context.name, context.settings, "path")
    yield LlamaServerEngine(context.name, context.data_dir, path)
