"""The database, and the models in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from gglib.cli.doctor.findings import BROKEN, OK, WARNING, Finding
from gglib.errors import DatabaseCorrupt, DatabaseTooNew

if TYPE_CHECKING:
    from gglib.bootstrap import Composition

__all__ = ["look_at_catalog", "look_at_models"]

_MEND = "stop the gateway, and put a file of the folder backups in its place"


async def look_at_catalog(parts: Composition) -> list[Finding]:
    """Return whether the catalog is whole, all of it."""
    try:
        damage = await (await parts.catalog()).check()
    except DatabaseTooNew as error:
        fix = "pip install --upgrade gglib, or use another --data-dir"
        return [Finding("database", BROKEN, str(error), fix)]
    except DatabaseCorrupt as error:
        return [Finding("database", BROKEN, str(error), _MEND)]
    findings = [Finding("database", BROKEN, f"it is damaged: {each}", _MEND) for each in damage]
    return findings or [Finding("database", OK, "whole")]


async def look_at_models(parts: Composition) -> list[Finding]:
    """Return how many models there are, and which files are gone."""
    models = await (await parts.models()).list()
    runners = await parts.runners()
    missing = []
    for model in models:
        names = model.defaults.runners or (parts.default_runner,)
        # The files of servers elsewhere are there: `doctor --runner` looks for them.
        is_here = model.origin.runner is None and any(
            (runner := runners.get(name)) is None or runner.files is None for name in names
        )
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
