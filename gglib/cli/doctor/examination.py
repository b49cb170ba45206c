"""The command: one look after the other, whatever the one before it met."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import attrs

from gglib.cli.doctor.catalog import look_at_catalog, look_at_models
from gglib.cli.doctor.devices import look_at_devices
from gglib.cli.doctor.engines import look_at_engines
from gglib.cli.doctor.findings import BROKEN, OK, WARNING, Finding, Look, looked
from gglib.cli.doctor.gateway import look_at_gateway
from gglib.cli.doctor.machine import clock_finding, versions_finding
from gglib.cli.doctor.plugins import look_at_plugins
from gglib.cli.doctor.servers import look_at_servers
from gglib.cli.doctor.storage import data_directory_findings, look_at_disks, look_at_leftovers
from gglib.cli.options import COMMON, Common, flags_of, settings_for
from gglib.cli.output import print_json, say
from gglib.errors import ConfigurationError, GglibError
from gglib.settings import Settings

__all__ = ["doctor"]

_MARKS = {OK: "ok ", WARNING: "?  ", BROKEN: "!! "}

_LOOKS: dict[str, Look] = {
    "disk": look_at_disks,
    "leftovers": look_at_leftovers,
    "database": look_at_catalog,
    "models": look_at_models,
    "plug-ins": look_at_plugins,
    "engines": look_at_engines,
    "devices": look_at_devices,
    "gateway": look_at_gateway,
    "servers": look_at_servers,
}


def doctor(*, runner: str | None = None, common: Common = COMMON) -> int:
    """Look at everything that gglib needs, and say what is wrong and how to mend it.

    Exits with 1 when something is broken.

    Parameters
    ----------
    runner
        Go the way to where this runner's servers run instead, step by step.
    """
    if runner is None:
        findings = anyio.run(_examine, common)
    else:
        from gglib.cli.doctor.way_to_runner import examine_runner

        findings = anyio.run(examine_runner, common, runner)
    if common.json:
        print_json([attrs.asdict(finding) for finding in findings])
    else:
        for finding in findings:
            say(f"{_MARKS[finding.state]} {finding.subject:15} {finding.detail}")
            if finding.fix:
                say(f"{'':20}-> {finding.fix}")
    return int(any(finding.state == BROKEN for finding in findings))


async def _examine(common: Common) -> list[Finding]:
    findings = [versions_finding(), clock_finding()]
    settings, finding = _settings(common)
    findings.append(finding)
    if settings is None:
        return findings

    from gglib.bootstrap import compose
    from gglib.logs import SilentSink

    try:
        async with compose(settings, events=SilentSink()) as parts:
            findings += data_directory_findings(settings.data_dir)
            for subject, look in _LOOKS.items():
                findings += await looked(subject, look, parts)
    except GglibError as error:
        findings.append(Finding("data directory", BROKEN, str(error)))
    return _each_once(findings)


def _settings(common: Common) -> tuple[Settings | None, Finding]:
    """Return the settings; the defaults, where those that were made are wrong."""
    try:
        settings = settings_for(common)
    except ConfigurationError as error:
        data_dir = _data_dir(common)
        if data_dir is None:
            return None, Finding("configuration", BROKEN, str(error))
        detail = f"{error}; what follows is by the defaults"
        fix = "correct it; gglib config check tells whether that was all"
        return Settings(data_dir=data_dir), Finding("configuration", BROKEN, detail, fix)
    source = str(settings.config_file) if settings.config_file else "defaults; no file"
    return settings, Finding("configuration", OK, source)


def _data_dir(common: Common) -> Path | None:
    from gglib.settings.load import find_data_dir

    try:
        return find_data_dir(flags_of(common), os.environ)[0]
    except ConfigurationError:
        return None


def _each_once(findings: list[Finding]) -> list[Finding]:
    """Leave out what several looks have met: one broken database is told once."""
    first: dict[str, str] = {}
    for finding in findings:
        first.setdefault(finding.detail, finding.subject)
    return [each for each in findings if first[each.detail] == each.subject]
