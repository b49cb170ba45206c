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
    from gglib.settings import LoadedSettings, Settings

__all__ = ["COMMON", "Common", "compose_for", "flags_of", "loaded_for", "settings_for"]


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
    return loaded_for(common, flags).settings


def loaded_for(common: Common, flags: Mapping[str, Any] | None = None) -> LoadedSettings:
    """As ``settings_for``; tells where each value is from, too."""
    from gglib.settings import load_settings

    return load_settings(flags={**flags_of(common), **_said(flags or {})}, environ=os.environ)


def flags_of(common: Common) -> dict[str, Any]:
    """Return the flags that say where settings are."""
    return _said({"data_dir": common.data_dir, "config": common.config})


def _said(flags: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value is not None}


@asynccontextmanager
async def compose_for(common: Common) -> AsyncIterator[Composition]:
    """Hold the parts of gglib for a command that prints, and does not log."""
    from gglib.bootstrap import compose
    from gglib.logs import SilentSink

    async with compose(settings_for(common), events=SilentSink()) as parts:
        yield parts
