"""An engine that differs from the usual in all that a runner has to heed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gglib.domain.config import ServerConfig
from gglib.testing.stub_engine import StubEngine

__all__ = ["KitEngine"]


class KitEngine(StubEngine):
    """Its servers run in ``working_directory``, with variables of their own, and tell their end.

    ``tell_health_at`` moves what tells that they are ready.
    """

    variables: Mapping[str, str] = {"KIT_ENGINE": "is odd", "COLOUR": "that of the engine"}

    def __init__(self, working_directory: Path) -> None:
        super().__init__(tells_end=True)
        working_directory.mkdir(exist_ok=True)
        self._working_directory = working_directory
        self._health_path = "/health"
        self._health_status = 200

    def tell_health_at(self, path: str, status: int) -> None:
        """Let the servers that are started from here on be ready when ``path`` says ``status``."""
        self._health_path = self.options["health_path"] = path
        self._health_status = self.options["health_status"] = status

    def environment(self, config: ServerConfig) -> Mapping[str, str]:
        """See ``Engine``."""
        del config
        return self.variables

    @property
    def health_path(self) -> str:
        """See ``Engine``."""
        return self._health_path

    @property
    def health_statuses(self) -> frozenset[int]:
        """See ``Engine``."""
        return frozenset({self._health_status})

    @property
    def working_directory(self) -> Path | None:
        """See ``Engine``."""
        return self._working_directory
