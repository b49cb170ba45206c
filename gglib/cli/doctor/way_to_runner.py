"""``gglib doctor --runner NAME``: how far the way to where servers run leads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gglib.cli.doctor.findings import BROKEN, OK, Finding
from gglib.cli.options import Common, settings_for

if TYPE_CHECKING:
    from gglib.bootstrap import Composition

__all__ = ["examine_runner"]


async def examine_runner(common: Common, name: str) -> list[Finding]:
    """Return what is found on the way to the runner ``name``, and of the models that name it.

    Raises:
        ConfigurationError: the settings are wrong.
        AdapterError: there is no such runner, or it is broken.
    """
    async with _composed(common) as parts:
        runner = (await parts.runners())[name]
        default = parts.default_runner
        models = await (await parts.models()).list()
        files = [
            path
            for model in models
            if name in (model.defaults.runners or (default,))
            for path in model.paths
        ]
        steps = await runner.examine(files)
    found = [
        Finding(step.name, OK if step.works else BROKEN, step.detail, step.fix) for step in steps
    ]
    return found or [Finding(name, OK, "its servers run here: there is no way to go")]


@asynccontextmanager
async def _composed(common: Common) -> AsyncIterator[Composition]:
    from gglib.bootstrap import compose
    from gglib.logs import SilentSink

    async with compose(settings_for(common), events=SilentSink()) as parts:
        yield parts
