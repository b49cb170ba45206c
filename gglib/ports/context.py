"""What an adapter's factory is given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from gglib.domain.config import ServerConfig
from gglib.errors import EngineNotFound
from gglib.ports.clock import Clock
from gglib.ports.engine import Engine
from gglib.ports.event_sink import EventSink

__all__ = ["AdapterContext", "EngineSet"]


class EngineSet:
    """The engines that were composed, by name. Runners ask it for a configuration's engine."""

    __slots__ = ("_engines",)

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = dict(engines)

    def __getitem__(self, name: str) -> Engine:
        try:
            return self._engines[name]
        except KeyError:
            known = ", ".join(sorted(self._engines)) or "none"
            raise EngineNotFound(
                name, f"not configured; known engines: {known}", (f"add [engines.{name}]",)
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._engines

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names, built-in engines first."""
        return tuple(self._engines)

    def for_config(self, config: ServerConfig) -> Engine:
        """Return the engine that ``config`` names.

        Raises:
            EngineNotFound: it names none, or one that is not here.
        """
        return self[config.engine or "unnamed"]


@attrs.frozen(kw_only=True)
class AdapterContext:
    """What bootstrap gives to ``factory(context)``, which returns an async context manager.

    ``name`` is the name it is configured under, ``settings`` its own section of the
    configuration, as plain data.
    """

    name: str
    settings: Mapping[str, Any]
    data_dir: Path
    clock: Clock
    events: EventSink
    engines: EngineSet
