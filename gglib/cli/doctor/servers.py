"""Servers on record: whose owners are gone, and those out of reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gglib.cli.doctor.findings import OK, WARNING, Finding
from gglib.services.ownership import disputed_process

if TYPE_CHECKING:
    from gglib.bootstrap import Composition
    from gglib.domain.ownership import ServerRecord

__all__ = ["look_at_servers"]


async def look_at_servers(parts: Composition) -> list[Finding]:
    """Return the servers that nobody owns any more, or that nobody can tell of."""
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
