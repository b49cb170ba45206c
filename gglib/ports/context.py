"""What an adapter's factory is given, and the adapters that were composed by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from copy import copy
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import attrs

from gglib.domain.config import ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.domain.ids import new_server_id
from gglib.errors import AdapterError, EngineNotFound, GglibError
from gglib.ports.clock import Clock
from gglib.ports.engine import Engine
from gglib.ports.event_sink import EventSink
from gglib.ports.process_runner import ProcessRunner

__all__ = ["AdapterContext", "AdapterFactory", "EngineSet", "RunnerSet"]

P = TypeVar("P")

_NONE_BROKEN: Mapping[str, GglibError] = MappingProxyType({})


def _again(kept: GglibError) -> GglibError:
    """Return a copy to raise: an error that is raised over and over gathers its tracebacks."""
    error = copy(kept)
    error.__cause__ = kept.__cause__
    return error


class EngineSet:
    """The engines that were composed, by name. Runners ask it for a configuration's engine.

    Whoever asks for a broken one gets the error that tells why; the others are not harmed.
    """

    __slots__ = ("_broken", "_engines")

    def __init__(
        self, engines: Mapping[str, Engine], broken: Mapping[str, GglibError] = _NONE_BROKEN
    ) -> None:
        self._engines = dict(engines)
        self._broken = dict(broken)

    def __getitem__(self, name: str) -> Engine:
        if name in self._engines:
            return self._engines[name]
        if name in self._broken:
            raise _again(self._broken[name])
        known = ", ".join(sorted(self._engines)) or "none"
        raise EngineNotFound(
            name, f"not configured; known engines: {known}", (f"add [engines.{name}]",)
        )

    def __contains__(self, name: object) -> bool:
        return name in self._engines

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of those that work, built-in engines first."""
        return tuple(self._engines)

    @property
    def broken(self) -> Mapping[str, GglibError]:
        """Return why those that do not work are broken."""
        return MappingProxyType(self._broken)

    def for_config(self, config: ServerConfig) -> Engine:
        """Return the engine that ``config`` names.

        Raises:
            EngineNotFound: it names none, or one that is not here.
            AdapterError: it is broken.
        """
        return self[config.engine or "unnamed"]


class RunnerSet(Mapping[str, ProcessRunner]):
    """The runners that were composed, by name: a mapping of those that work.

    Whoever asks for another gets the ``AdapterError`` that tells why.
    """

    __slots__ = ("_broken", "_runners")

    def __init__(
        self, runners: Mapping[str, ProcessRunner], broken: Mapping[str, GglibError] = _NONE_BROKEN
    ) -> None:
        self._runners = dict(runners)
        self._broken = dict(broken)

    def __getitem__(self, name: str) -> ProcessRunner:
        if name in self._runners:
            return self._runners[name]
        if name in self._broken:
            raise _again(self._broken[name])
        known = ", ".join(sorted(self._runners)) or "none"
        reason = f"no such runner; known: {known}; add [runners.{name}] if it is installed"
        raise AdapterError("gglib.process_runners", name, reason)

    def __contains__(self, name: object) -> bool:
        return name in self._runners

    def __iter__(self) -> Iterator[str]:
        return iter(self._runners)

    def __len__(self) -> int:
        return len(self._runners)

    def get(  # type: ignore[override]
        self, name: str, default: ProcessRunner | None = None, /
    ) -> ProcessRunner | None:
        """Return the runner, or ``default`` where there is none that works."""
        return self._runners.get(name, default)

    @property
    def broken(self) -> Mapping[str, GglibError]:
        """Return why those that do not work are broken."""
        return MappingProxyType(self._broken)


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

    def handle_for(
        self,
        config: ServerConfig,
        *,
        port: int,
        node: str,
        engine: Engine | None = None,
        base_url: str | None = None,
        ca_file: str | None = None,
        pid: int | None = None,
        process_started_at: float | None = None,
    ) -> ProcessHandle:
        """Return the handle of a server that this adapter starts now. For runners.

        Its identity is the one that ``config`` carries, else a new one. If it is not given,
        ``base_url`` is where ``engine`` says that its servers are reached on their machine, with
        the engine's ``ca_file``; without an engine, the port of this machine.
        """
        if base_url is None and engine is not None:
            base_url, ca_file = engine.base_url(port), ca_file or engine.ca_file
        return ProcessHandle(
            model_id=config.model_id,
            model_name=config.model_name,
            pid=pid,
            port=port,
            started_at=self.clock.now(),
            server_id=config.server_id or new_server_id(),
            runner=self.name,
            node=node,
            base_url=base_url or f"http://127.0.0.1:{port}",
            process_started_at=process_started_at,
            ca_file=ca_file,
        )


#: What an entry point names.
AdapterFactory = Callable[[AdapterContext], AbstractAsyncContextManager[P]]
