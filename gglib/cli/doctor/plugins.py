"""Plug-ins: adapters of other packages than gglib."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

from gglib.cli.doctor.findings import BROKEN, OK, WARNING, Finding
from gglib.errors import AdapterError, ConfigurationError, EngineNotFound, GglibError

if TYPE_CHECKING:
    from gglib.bootstrap import Composition

__all__ = ["fix_of", "look_at_plugins"]


@attrs.frozen
class _Failure:
    """An adapter that was asked for by ``name`` and is broken."""

    group: str
    name: str
    error: GglibError

    def concerns(self, group: str, name: str) -> bool:
        """Return whether it is of that plug-in, which may be configured under another name."""
        kind = self.error.name if isinstance(self.error, AdapterError) else self.name
        return (group, name) == (self.group, kind)

    def finding(self, fix: str) -> Finding:
        """Return what to say of it; what lacks its program, or its section, is not broken."""
        error = self.error
        reason = error.reason if isinstance(error, AdapterError | EngineNotFound) else str(error)
        detail = f"{self.name} ({self.group}): {' '.join(reason.split())}"
        if isinstance(error, EngineNotFound | ConfigurationError):
            return Finding("plug-in", WARNING, detail)
        return Finding("plug-in", BROKEN, detail, fix)


async def look_at_plugins(parts: Composition) -> list[Finding]:
    """Return every plug-in: each is loaded, and opened if somebody asks for it."""
    from gglib.plugins import survey_plugins

    failures = await _failures(parts)
    findings = []
    for plugin in survey_plugins():
        group, name, distribution = plugin.group, plugin.name, plugin.distribution
        concerned = [
            each for each in failures if each.concerns(group, name) and not plugin.shadowed
        ]
        failures = [each for each in failures if each not in concerned]
        fix = fix_of(distribution)
        if plugin.error is not None:
            findings.append(_Failure(group, name, plugin.error).finding(fix))
        elif concerned:
            findings += [each.finding(fix) for each in concerned]
        else:
            origin = f"{distribution} {plugin.version}"
            findings.append(Finding("plug-in", OK, f"{name} ({group}) of {origin}"))
    fix = "install what provides it, or name another in the configuration"
    return findings + [each.finding(fix) for each in failures]


async def _failures(parts: Composition) -> list[_Failure]:
    """Open every engine, and the runners and sources that are configured."""
    from gglib.plugins import ENGINES, MODEL_SOURCES, PROCESS_RUNNERS

    failures = []
    # A section that is wrong is no fault of a plug-in's: the other looks tell it.
    with suppress(ConfigurationError):
        for name, error in (await parts.engines()).broken.items():
            failures.append(_Failure(ENGINES, name, error))
        for name, error in (await parts.runners()).broken.items():
            failures.append(_Failure(PROCESS_RUNNERS, name, error))
    for name in parts.settings.sources:
        try:
            async with parts.open_source(name):
                pass
        except GglibError as error:
            failures.append(_Failure(MODEL_SOURCES, name, error))
    return failures


def fix_of(distribution: str | None) -> str:
    """Return what to do about a package whose code is at fault."""
    return f"pip install --upgrade {distribution}, or pip uninstall {distribution}"
