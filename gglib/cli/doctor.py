"""``gglib doctor``: what is wrong here, and how to mend it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import anyio
import attrs

from gglib import __version__
from gglib.cli.finding import BROKEN, OK, WARNING, Finding
from gglib.cli.gateway_client import GatewayClient, find_gateway
from gglib.cli.options import COMMON, Common, settings_for
from gglib.cli.output import print_json, say
from gglib.errors import AdapterError, ConfigurationError, EngineNotFound, GglibError
from gglib.services.ownership import disputed_process

if TYPE_CHECKING:
    from gglib.bootstrap import Composition
    from gglib.domain.ownership import ServerRecord
    from gglib.settings import Settings

__all__ = ["doctor"]

_MARKS = {OK: "ok ", WARNING: "?  ", BROKEN: "!! "}


def doctor(*, runner: str | None = None, common: Common = COMMON) -> int:
    """Look at the installation, the data directory, plug-ins, engines, the port and the gateway.

    Exits with 1 when something is broken.

    Parameters
    ----------
    runner
        Go the way to where this runner's servers run instead, step by step.
    """
    if runner is None:
        findings = anyio.run(_examine, common)
    else:
        from gglib.cli.runner_doctor import examine_runner

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
    findings = [_versions()]
    try:
        settings = settings_for(common)
    except ConfigurationError as error:
        return [*findings, Finding("configuration", BROKEN, str(error), "correct the file")]
    source = str(settings.config_file) if settings.config_file else "defaults; no file"
    findings.append(Finding("configuration", OK, source))

    from gglib.bootstrap import compose
    from gglib.logs import SilentSink

    try:
        async with compose(settings, events=SilentSink()) as parts:
            findings.append(_data_directory(settings))
            for subject, look in _LOOKS.items():
                findings += await _looked(subject, look, parts)
    except GglibError as error:
        findings.append(Finding("data directory", BROKEN, str(error)))
    return findings


Look = Callable[["Composition"], Awaitable[list[Finding]]]


async def _looked(subject: str, look: Look, parts: Composition) -> list[Finding]:
    try:
        return await look(parts)
    except GglibError as error:
        return [Finding(subject, BROKEN, str(error))]
    except BaseException as error:  # a plug-in's: the other looks are worth having
        from gglib.plugins import described, is_fault

        if not is_fault(error):
            raise
        return [Finding(subject, BROKEN, described(error))]


def _versions() -> Finding:
    packages = []
    for package in ("xllamacpp", "uvicorn", "litestar", "sqlalchemy"):
        try:
            packages.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            packages.append(f"{package} missing")
    python = f"Python {platform.python_version()} on {sys.platform}"
    return Finding("versions", OK, f"gglib {__version__}, {python}, {', '.join(packages)}")


def _data_directory(settings: Settings) -> Finding:
    path = settings.data_dir
    if not os.access(path, os.W_OK | os.X_OK):
        return Finding(
            "data directory", BROKEN, f"{path} cannot be written", "choose one with --data-dir"
        )
    mode = path.stat().st_mode & 0o077
    if mode:
        return Finding(
            "data directory", WARNING, f"{path} is open to other users", f"chmod 700 {path}"
        )
    return Finding("data directory", OK, str(path))


async def _catalog(parts: Composition) -> list[Finding]:
    models = await (await parts.models()).list()
    runners = await parts.runners()
    missing = []
    for model in models:
        runner = runners.get(model.defaults.runner or parts.default_runner)
        # The files of servers elsewhere are there: `doctor --runner` looks for them.
        is_here = runner is None or runner.takes_memory_here
        if is_here and not await anyio.Path(model.path).exists():
            missing.append(model)
    findings = [Finding("models", OK, f"{len(models)} known")]
    findings += [
        Finding(
            "models",
            WARNING,
            f"the file of {model.name} is gone: {model.path}",
            "correct its path in the configuration file"
            if model.origin.kind == "config"
            else f"gglib model remove {model.name}",
        )
        for model in missing
    ]
    return findings


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


async def _plugins(parts: Composition) -> list[Finding]:
    from gglib.plugins import survey_plugins

    failures = await _failures(parts)
    findings = []
    for plugin in survey_plugins():
        group, name, distribution = plugin.group, plugin.name, plugin.distribution
        concerned = [
            each for each in failures if each.concerns(group, name) and not plugin.shadowed
        ]
        failures = [each for each in failures if each not in concerned]
        fix = _fix_of(distribution)
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


def _fix_of(distribution: str | None) -> str:
    return f"pip install --upgrade {distribution}, or pip uninstall {distribution}"


def _faulty_engine(parts: Composition, name: str, error: BaseException) -> Finding:
    """Return what to say of an engine whose code is at fault: whose it is, and what to do."""
    from gglib.plugins import ENGINES, adapter_names, described, distribution_of

    usual_kind = name if name in adapter_names(ENGINES) else "command"
    kind = parts.settings.engines.get(name, {}).get("kind", usual_kind)
    detail = f"{name}: {described(error)}"
    of = distribution_of(ENGINES, kind)
    if of is None:
        return Finding("engine", BROKEN, detail)
    return Finding("engine", BROKEN, f"{detail} (from {' '.join(of)})", _fix_of(of[0]))


async def _engines(parts: Composition) -> list[Finding]:
    from gglib.plugins import is_fault

    engines = await parts.engines()
    findings = []
    default = parts.settings.serving.engine
    if default and default not in engines and default not in engines.broken:
        known = f"known engines: {', '.join(engines.names)}"
        detail = f"'{default}', the default of [serving], is not configured; {known}"
        findings.append(Finding("engine", BROKEN, detail, f"add [engines.{default}]"))
    found_one = False
    for name in engines.names:
        try:
            probe = await engines[name].probe()
            found = " ".join(str(part) for part in (probe.version, probe.path) if part)
            findings.append(Finding("engine", OK, f"{name} {found} ({probe.source})"))
            found_one = True
        except EngineNotFound as error:
            # One that was never asked for is no fault, as long as there is another.
            state = WARNING if name in parts.settings.engines else OK
            findings.append(Finding("engine", state, f"{name}: not here; {error.reason}"))
        except GglibError as error:
            findings.append(Finding("engine", BROKEN, f"{name}: {error}"))
        except BaseException as error:  # a plug-in's: the other engines are worth a look
            if not is_fault(error):
                raise
            findings.append(_faulty_engine(parts, name, error))
    if not found_one:
        findings.append(Finding("engines", BROKEN, "there is none", "pip install 'gglib[llama]'"))
    return findings


async def _gateway(parts: Composition) -> list[Finding]:
    presence = find_gateway(parts.settings.data_dir)
    if presence is not None:
        async with GatewayClient(presence) as client:
            running = await client.running()
        detail = f"serves at {presence.address} (pid {presence.pid}), {len(running)} loaded"
        return [Finding("gateway", OK, detail)]
    port = parts.settings.gateway.port
    processes = await parts.process_table()
    holder = await anyio.to_thread.run_sync(processes.holder_of_port, port) if port else None
    if holder is not None:
        fix = "stop it, or serve on another: gglib serve --port N"
        return [Finding("gateway", WARNING, f"port {port} is in use by {holder}", fix)]
    return [Finding("gateway", OK, f"not running; port {port} is free")]


async def _servers(parts: Composition) -> list[Finding]:
    processes = await parts.process_table()
    runners = await parts.runners()
    findings = []
    for record in await (await parts.registry()).list():
        if record.runner not in runners:
            findings.append(_out_of_reach(record, broken=record.runner in runners.broken))
            continue
        owner = record.owner
        alive = processes.is_alive(owner.node, owner.pid, owner.process_started_at)
        runner = runners[record.runner]
        running = record.handle is not None and await runner.is_running(record.handle)
        name = record.config.model_name
        if not running and (disputed := await disputed_process(record, runner)) is not None:
            detail = (
                f"a process (pid {disputed.pid}) bears the id of a server of {name}, but began at "
                "another time than is on record; it is left alone"
            )
            findings.append(Finding("servers", WARNING, detail, f"gglib stop {name}"))
        elif running and not alive and owner.kind != "standalone":
            detail = f"a server of {name} runs on and its owner is gone"
            findings.append(Finding("servers", WARNING, detail, f"gglib stop {name}"))
    return findings or [Finding("servers", OK, "no orphans")]


def _out_of_reach(record: ServerRecord, *, broken: bool) -> Finding:
    """Return what to say of a server that may run, though nothing here can tell."""
    name, runner = record.config.model_name, record.runner
    why = "is broken" if broken else "is not here"
    detail = f"a server of {name} is on record with the runner '{runner}', which {why}"
    verb = "mend" if broken else "give or configure"
    return Finding("servers", WARNING, detail, f"{verb} that runner, then `gglib stop {name}`")


_LOOKS: dict[str, Look] = {
    "models": _catalog,
    "plug-ins": _plugins,
    "engines": _engines,
    "gateway": _gateway,
    "servers": _servers,
}
