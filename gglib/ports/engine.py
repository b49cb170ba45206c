"""How a server is started: from intent to a command line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import attrs

from gglib.domain.config import ServerConfig

__all__ = ["Engine", "EngineCapabilities", "EngineProbe"]


@attrs.frozen(kw_only=True)
class EngineCapabilities:
    """What servers of an engine can do."""

    slots: bool = False
    """Saves and restores the KV cache of a slot, and reports slots."""
    lora: bool = False
    embeddings: bool = False
    metrics: bool = False
    context_size: bool = False
    """Takes the context's size in tokens of any configuration; if none, it is the model's own."""
    prompt_cache: bool = False
    """Keeps earlier prompts in the machine's memory, and takes a bound (``cache_ram_mib``)."""
    answers_while_busy: bool = False
    """Answers ``health_path`` in time whatever it works on: if not, it is taken to hang."""


@attrs.frozen(kw_only=True)
class EngineProbe:
    """What was found on this machine."""

    path: Path | None
    version: str | None
    source: str
    """How it was found: ``setting``, ``GGLIB_LLAMA_SERVER``, ``PATH``, ``installed``, ``package``,
    ``configuration``."""
    flags: tuple[str, ...] = ()
    """Every spelling that its command line knows; empty where it does not tell."""


class Engine(ABC):
    """Builds command lines. After a successful ``probe`` every other method is pure."""

    __slots__ = ()

    @property
    @abstractmethod
    def name(self) -> str:
        """The name that models and settings use."""

    @property
    @abstractmethod
    def capabilities(self) -> EngineCapabilities:
        """What its servers can do."""

    @abstractmethod
    async def probe(self) -> EngineProbe:
        """Find the engine. Cached until what was found changes on disk; safe to call often.

        Raises:
            EngineNotFound: it is not here; carries the ways to get it.
        """

    @abstractmethod
    def command(self, config: ServerConfig, port: int) -> list[str]:
        """Return the argument vector that serves ``config`` on ``127.0.0.1:port``.

        No secret is in it. ``config.extra_args`` come last.

        Raises:
            EngineCannot: this engine has no way to express an intent of ``config``.
            EngineNotFound: ``probe`` has not found it.
        """

    def elsewhere(self, node: str, path: str, help_text: str) -> Engine:
        """Return this engine as it is on another machine; it needs no ``probe`` on this one.

        ``path``: its program there; ``help_text``: what that says of itself. Here: the same,
        for engines whose command is that of any machine.

        Raises:
            EngineCannot: it is only on this machine.
            EngineNotFound: what is there is none.
        """
        del node, path, help_text
        return self

    def environment(self, config: ServerConfig) -> Mapping[str, str]:
        """Return variables to set beside ``config.environment``, which wins."""
        del config
        return {}

    @property
    def api_key_variable(self) -> str | None:
        """The variable by which its servers take an API key; ``None`` = they take none."""
        return None

    def base_url(self, port: int) -> str:
        """Return where a server of it that was given ``port`` is reached on its own machine."""
        return f"http://127.0.0.1:{port}"

    @property
    def ca_file(self) -> str | None:
        """Whose certificates its servers have, in PEM; ``None`` = whom the system trusts."""
        return None

    @property
    def health_path(self) -> str:
        """The path that tells whether a server is ready."""
        return "/health"

    @property
    def health_statuses(self) -> frozenset[int]:
        """The statuses of ``health_path`` that mean ready."""
        return frozenset({200})

    @property
    def working_directory(self) -> Path | None:
        """Where its servers run; ``None`` = the data directory."""
        return None
