"""Options that every command takes, and what they lead to."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import attrs
from cyclopts import Parameter

if TYPE_CHECKING:
    from gglib.bootstrap import Composition
    from gglib.settings import Settings

__all__ = ["COMMON", "Common", "compose_for", "settings_for"]


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Common:
    """Options of every command."""

    data_dir: Path | None = None
    "Where gglib keeps its catalog, logs and state (GGLIB_HOME)."

    config: Path | None = None
    "The configuration file (GGLIB_CONFIG; else gglib.toml in the data directory)."

    json: Annotated[bool, Parameter(negative=())] = False
    "Print data as JSON."

    debug: Annotated[bool, Parameter(negative=())] = False
    "Show the traceback of an error."


COMMON = Common()


def settings_for(common: Common, flags: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings that flags, environment, file and defaults make.

    Raises:
        ConfigurationError: one of them is wrong.
    """
    from gglib.settings import load_settings

    given = {"data_dir": common.data_dir, "config": common.config, **(flags or {})}
    known = {name: value for name, value in given.items() if value is not None}
    return load_settings(flags=known, environ=os.environ).settings


@asynccontextmanager
async def compose_for(common: Common) -> AsyncIterator[Composition]:
    """Hold the parts of gglib for a command that prints, and does not log."""
    from gglib.bootstrap import compose
    from gglib.logs import SilentSink

    async with compose(settings_for(common), events=SilentSink()) as parts:
        yield parts
