"""Engines: found and asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gglib.cli.doctor.findings import BROKEN, OK, WARNING, Finding
from gglib.cli.doctor.plugins import fix_of
from gglib.errors import EngineNotFound, GglibError

if TYPE_CHECKING:
    from gglib.bootstrap import Composition

__all__ = ["look_at_engines"]


async def look_at_engines(parts: Composition) -> list[Finding]:
    """Return every engine, found and asked, or why it is not here."""
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
        fix = "gglib engine install, or pip install 'gglib[llama]'"
        findings.append(Finding("engines", BROKEN, "there is none", fix))
    return findings


def _faulty_engine(parts: Composition, name: str, error: BaseException) -> Finding:
    """Return what to say of an engine whose code is at fault: whose it is, and what to do."""
    from gglib.plugins import ENGINES, adapter_names, described, distribution_of

    usual_kind = name if name in adapter_names(ENGINES) else "command"
    kind = parts.settings.engines.get(name, {}).get("kind", usual_kind)
    detail = f"{name}: {described(error)}"
    of = distribution_of(ENGINES, kind)
    if of is None:
        return Finding("engine", BROKEN, detail)
    return Finding("engine", BROKEN, f"{detail} (from {' '.join(of)})", fix_of(of[0]))
