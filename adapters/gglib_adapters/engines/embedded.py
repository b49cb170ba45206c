"""The engine that needs no binary: the ``xllamacpp`` wheel, run as a child process."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from gglib.domain.config import ServerConfig
from gglib.errors import EngineCannot, EngineNotFound
from gglib.ports.context import AdapterContext
from gglib.ports.engine import Engine, EngineCapabilities, EngineProbe
from gglib_adapters.engines.embedded_flags import help_text
from gglib_adapters.engines.embedded_site import PACKAGE, SITE_VARIABLE
from gglib_adapters.engines.llama_flags import ENVIRONMENT, build_argv
from gglib_adapters.engines.llama_help import KnownFlags, parse_help
from gglib_adapters.engines.settings import refuse_unknown
from gglib_adapters.engines.versions import Versions

__all__ = ["SERVER_MODULE", "WAYS", "EmbeddedEngine", "open_embedded_engine"]

#: What the child process runs.
SERVER_MODULE = "gglib_adapters.engines.embedded_server"

#: How to get an engine, simplest first.
WAYS = (
    "pip install 'gglib[llama]'",
    "gglib engine install embedded",
    "put llama-server on PATH, or set GGLIB_LLAMA_SERVER or [engines.llama-server] path to it",
    "declare a command engine for a server of your own",
)


class EmbeddedEngine(Engine):
    """Serves GGUF models with llama.cpp out of a wheel, in llama-server's flags.

    The package is never imported here: it is 100 MB of code that only the child needs.
    """

    __slots__ = ("_flags", "_name", "_probe", "_site", "_spellings", "_versions")

    def __init__(self, name: str, data_dir: Path) -> None:
        self._name = name
        self._versions = Versions.of(name, data_dir)
        self._site: Path | None = None
        self._spellings: tuple[str, ...] = ()
        self._flags = KnownFlags({})
        self._probe: EngineProbe | None = None

    @property
    def name(self) -> str:
        """The name that models and settings use."""
        return self._name

    @property
    def capabilities(self) -> EngineCapabilities:
        """What its servers can do."""
        return EngineCapabilities(
            slots=True,
            lora=True,
            embeddings=True,
            metrics=True,
            context_size=True,
            prompt_cache=True,
            answers_while_busy=True,
        )

    @property
    def api_key_variable(self) -> str | None:
        """The variable by which its servers take an API key."""
        return "LLAMA_API_KEY"

    def environment(self, config: ServerConfig) -> Mapping[str, str]:
        """Return what its servers need beside ``config.environment``."""
        del config
        if self._site is None:
            return ENVIRONMENT
        return {**ENVIRONMENT, SITE_VARIABLE: str(self._site)}

    async def probe(self) -> EngineProbe:
        """Look for the package in this interpreter, and then where `engine install` puts it.

        Raises:
            EngineNotFound: it is not installed; carries the ways.
        """
        from importlib.metadata import PackageNotFoundError, version
        from importlib.util import find_spec

        if not self._flags.options:
            self._flags = parse_help(help_text())
            self._spellings = tuple(sorted(self._flags.options))
        spec = find_spec(PACKAGE)
        if spec is not None:
            try:
                found: str | None = version(PACKAGE)
            except PackageNotFoundError:
                found = None
            path = Path(spec.origin) if spec.origin else None
            return self._found(path, found, "package", site=None)
        installed = self._versions.current()
        if installed is not None and installed.path.is_dir():
            path, site = installed.path / "__init__.py", installed.path.parent
            return self._found(path, installed.version, "installed", site=site)
        self._probe = None
        raise EngineNotFound(self._name, f"the package {PACKAGE} is not installed", WAYS)

    def _found(
        self, path: Path | None, version: str | None, source: str, *, site: Path | None
    ) -> EngineProbe:
        self._site = site
        self._probe = EngineProbe(path=path, version=version, source=source, flags=self._spellings)
        return self._probe

    def elsewhere(self, node: str, path: str, help_text: str) -> Engine:
        """Refuse: the package is in this interpreter.

        Raises:
            EngineCannot: always.
        """
        del path, help_text
        raise EngineCannot(self._name, "runner", node, "name the engine llama-server there")

    def command(self, config: ServerConfig, port: int) -> list[str]:
        """Return the command line of the child process.

        Raises:
            EngineCannot: the embedded server has no flag for an intent of ``config``.
            EngineNotFound: ``probe`` has not found the package.
        """
        if self._probe is None:
            raise EngineNotFound(self._name, "it has not been probed", WAYS)
        # -P: no module in the server's working directory stands in for a real one.
        program = [sys.executable, "-P", "-m", SERVER_MODULE]
        return build_argv(program, config, port, self._flags, engine=self._name)


@asynccontextmanager
async def open_embedded_engine(context: AdapterContext) -> AsyncIterator[Engine]:
    """Open the engine. It has no settings.

    Raises:
        ConfigurationError: it was given one.
    """
    refuse_unknown(context.name, context.settings, ())
    yield EmbeddedEngine(context.name, context.data_dir)
