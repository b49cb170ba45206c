"""``gglib config``: the settings, where they are from, and a running gateway's."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import attrs
from cyclopts import App

from gglib.cli.gateway_client import GatewayClient, require_gateway
from gglib.cli.options import COMMON, Common, flags_of, loaded_for
from gglib.cli.output import print_json, print_table, say, tell

__all__ = ["app"]

app = App(name="config", help="Settings.", help_format="plaintext")


@app.command
def show(*, common: Common = COMMON) -> None:
    """Show each value, and where it is from. Secrets are not shown."""
    from gglib.settings.shown import shown_settings

    shown = list(shown_settings(loaded_for(common)))
    if common.json:
        print_json([attrs.asdict(each) for each in shown])
        return
    rows = [(each.key, _written(each.value), each.source) for each in shown]
    print_table(("KEY", "VALUE", "FROM"), rows)


@app.command
def check(file: Path | None = None, /, *, common: Common = COMMON) -> None:
    """Say whether a gateway could be started by these settings. Nothing is started.

    Parameters
    ----------
    file
        The settings file; else the one that would be used.
    """
    from gglib.gateway.checking import check_settings

    loaded = loaded_for(common, {"config": file})
    doubts = anyio.run(check_settings, loaded)
    settings = loaded.settings
    path = None if settings.config_file is None else str(settings.config_file)
    if common.json:
        print_json({"path": path, "models": sorted(settings.models), "doubts": doubts})
        return
    _tell_doubts(doubts)
    count = len(settings.models)
    models = "1 model" if count == 1 else f"{count} models"
    say(f"{path} is right: it declares {models}" if path else "no file; the defaults are right")


@app.command
def path(*, common: Common = COMMON) -> None:
    """Say where the settings file is, or would be."""
    from gglib.settings import find_data_dir, find_settings_file

    flags = flags_of(common)
    data_dir, _ = find_data_dir(flags, os.environ)
    found, source = find_settings_file(flags, os.environ, data_dir)
    if common.json:
        print_json({"path": str(found), "exists": found.is_file(), "source": source})
    else:
        say(str(found))


@app.command
def schema(*, common: Common = COMMON) -> None:
    """Print the JSON Schema of the settings file, for editors."""
    from gglib.settings.schema import settings_schema

    del common
    say(json.dumps(settings_schema(), indent=2))


@app.command
def reload(*, common: Common = COMMON) -> None:
    """Have the running gateway take up what has changed in its settings."""
    from gglib.settings import find_data_dir

    # Not the settings: they may be wrong, and what the gateway says of them is what counts.
    data_dir, _ = find_data_dir(flags_of(common), os.environ)

    async def work() -> dict[str, Any]:
        async with GatewayClient(require_gateway(data_dir)) as client:
            return await client.reload()

    told = anyio.run(work)
    if common.json:
        print_json(told)
        return
    for key in told["changed"]:
        say(f"changed {key}")
    for key in told["at_next_start"]:
        say(f"takes effect at the next start: {key}")
    if not told["changed"] and not told["at_next_start"]:
        say("nothing has changed")
    _tell_doubts(told["doubts"])


def _tell_doubts(doubts: Sequence[str]) -> None:
    for doubt in doubts:
        tell(f"gglib: warning: {doubt}")


def _written(value: Any) -> str:
    """Return a value as people read it, on one line."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
