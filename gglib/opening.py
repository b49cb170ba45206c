"""Adapters, opened: those that were given, and those that the settings and entry points name."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Generic, TypeVar, cast

import attrs

from gglib.domain.events import AdapterFailed
from gglib.errors import AdapterError, ConfigurationError, GglibError
from gglib.given import Adapter
from gglib.plugins import enter_adapter, open_adapter
from gglib.ports.context import AdapterContext, AdapterFactory, EngineSet

__all__ = ["AdapterOpener", "ByName", "Place"]

P = TypeVar("P")

Sections = Mapping[str, Mapping[str, Any]]


@attrs.frozen(kw_only=True)
class Place(Generic[P]):
    """Where adapters of one port come from: a group of entry points, and sections for them."""

    group: str
    port: type[P]
    sections: Sections = attrs.field(factory=dict)


@attrs.frozen
class ByName(Generic[P]):
    """Adapters of one port that were opened by name, and why the others were not."""

    working: dict[str, P] = attrs.field(factory=dict)
    broken: dict[str, GglibError] = attrs.field(factory=dict)


class AdapterOpener:
    """Opens the adapters of one process on its exit stack."""

    def __init__(self, stack: AsyncExitStack, base: AdapterContext) -> None:
        """``base`` is what every adapter is given, but for its name and settings."""
        self._stack = stack
        self._base = base

    def give_engines(self, engines: EngineSet) -> None:
        """Let adapters that are opened from now on have the engines."""
        self._base = attrs.evolve(self._base, engines=engines)

    async def open(
        self,
        place: Place[P],
        name: str,
        *,
        given: Adapter[P] | None = None,
        usual_kind: str | None = None,
        stack: AsyncExitStack | None = None,
    ) -> P:
        """Return the adapter of that name: ``given``, or the kind that its section names.

        An instance is its giver's to open and close; what a factory makes is left with the
        stack.

        Raises:
            AdapterError: it is not installed, or broken.
            GglibError: what it has to say itself.
        """
        if isinstance(given, place.port):
            return given
        stack = stack or self._stack
        section = dict(place.sections.get(name, {}))
        kind = section.pop("kind", usual_kind or name)
        context = attrs.evolve(self._base, name=name, settings=section)
        if given is None:
            return await open_adapter(stack, place.group, kind, place.port, context)
        factory = cast("AdapterFactory[P]", given)
        return await enter_adapter(
            stack, factory, place.port, context, group=place.group, name=name
        )

    async def try_open(
        self,
        found: ByName[P],
        place: Place[P],
        name: str,
        *,
        asked: bool,
        usual_kind: str | None = None,
    ) -> None:
        """Open one into ``found``: a failure is remembered there, and harms no other.

        ``asked``: whether somebody asked for it, so that its failure is an event.

        Raises:
            ConfigurationError: its section is wrong.
        """
        try:
            found.working[name] = await self.open(place, name, usual_kind=usual_kind)
        except GglibError as error:
            if isinstance(error, ConfigurationError) and name in place.sections:
                raise
            found.broken[name] = error
            if asked:
                self._tell(place.group, name, error)

    def _tell(self, group: str, name: str, error: GglibError) -> None:
        reason = error.reason if isinstance(error, AdapterError) else str(error)
        self._base.events.emit(
            AdapterFailed(at=self._base.clock.now(), group=group, adapter_name=name, reason=reason)
        )
