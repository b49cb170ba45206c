"""Engines for tests of runners: real processes, scripted."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gglib.domain.config import ServerConfig
from gglib.errors import EngineNotFound
from gglib.ports.engine import Engine, EngineCapabilities, EngineProbe

__all__ = ["MissingEngine", "StubEngine"]

_SCRIPT = Path(__file__).with_name("stub_server.py")


class StubEngine(Engine):
    """Runs ``stub_server.py`` with ``options``; ``for_model`` adds to them per model name.

    What the options do is said at the top of that file; ``program`` names another one to run
    in its place. ``before_spawn(port)`` is called when the port has been chosen and nothing is
    started yet. ``ports`` and ``configs`` record what commands were asked for.
    """

    def __init__(self, name: str = "stub", *, takes_key: bool = False, **options: Any) -> None:
        self._name = name
        self._takes_key = takes_key
        self.options: dict[str, Any] = options
        self.for_model: dict[str, Mapping[str, Any]] = {}
        self.before_spawn: Callable[[int], None] = lambda port: None
        self.ports: list[int] = []
        self.configs: list[ServerConfig] = []

    @property
    def name(self) -> str:
        """See ``Engine``."""
        return self._name

    @property
    def capabilities(self) -> EngineCapabilities:
        """See ``Engine``."""
        return EngineCapabilities(embeddings=True, slots="props" in self.options)

    @property
    def api_key_variable(self) -> str | None:
        """See ``Engine``."""
        return "STUB_API_KEY" if self._takes_key else None

    async def probe(self) -> EngineProbe:
        """Find the script."""
        return EngineProbe(path=_SCRIPT, version="1", source="configuration")

    def command(self, config: ServerConfig, port: int) -> list[str]:
        """See ``Engine``."""
        self.ports.append(port)
        self.configs.append(config)
        self.before_spawn(port)
        options = {
            **self.options,
            **self.for_model.get(config.model_name, {}),
            "port": port,
            "model_name": config.model_name,
        }
        if "program" in options:
            return [options["program"]]
        # -I -S: a third of the interpreter's start, and deaf to the environment.
        return [sys.executable, "-I", "-S", str(_SCRIPT), json.dumps(options)]


class MissingEngine(StubEngine):
    """An engine that is not on this machine."""

    async def probe(self) -> EngineProbe:
        """Find nothing."""
        raise EngineNotFound(self.name, "not here", ("get it",))
