"""``gglib top``: on a terminal live, otherwise one look, or JSON for programs."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import anyio
import attrs
from cyclopts import Parameter
from cyclopts.validators import Number

from gglib.cli.options import COMMON, Common, flags_of
from gglib.cli.output import print_json, say
from gglib.cli.top.watch import open_watch

__all__ = ["top"]


def top(
    *,
    interval_s: Annotated[float, Parameter(validator=Number(gte=0.1, lte=3600))] = 1.0,
    once: Annotated[bool, Parameter(negative=())] = False,
    common: Common = COMMON,
) -> None:
    """Watch a running gateway: its servers, queues, speed, memory, and what happens.

    `q` or Ctrl-C quits. A gateway that goes away is waited for. Where standard output is no
    terminal, it is one look.

    Parameters
    ----------
    interval_s
        Seconds between two looks.
    once
        Look once, after an interval in which requests are counted; with --json, print one object.
    """
    from gglib.settings import find_data_dir

    data_dir, _ = find_data_dir(flags_of(common), os.environ)
    if once or not (common.json or sys.stdout.isatty()):
        anyio.run(_look_once, data_dir, interval_s, common.json)
    elif common.json:
        anyio.run(_tell, data_dir, interval_s)
    elif anyio.run(_watch, data_dir, interval_s):
        # The terminal is as it was: now end as one does that was told to.
        signal.raise_signal(signal.SIGTERM)


async def _look_once(data_dir: Path, interval_s: float, as_json: bool) -> None:
    from gglib.cli.top.text import print_snapshot

    async with open_watch(data_dir) as watch:
        await watch.see()
        await anyio.sleep(interval_s)
        seen = await watch.see()
    if as_json:
        print_json(attrs.asdict(seen))
    else:
        print_snapshot(seen)


async def _tell(data_dir: Path, interval_s: float) -> None:
    """Print a line of JSON for every look, until it is interrupted or nobody reads it."""
    async with open_watch(data_dir) as watch:
        while True:
            say(json.dumps(attrs.asdict(await watch.look()), ensure_ascii=False))
            sys.stdout.flush()
            await anyio.sleep(interval_s)


async def _watch(data_dir: Path, interval_s: float) -> bool:
    """Show looks until it is enough; return whether that was a signal's wish."""
    from gglib.cli.top.keys import pressed, until_pressed
    from gglib.cli.top.screen import show

    was_told = False
    async with open_watch(data_dir) as watch:
        with (
            pressed() as descriptor,
            anyio.open_signal_receiver(signal.SIGTERM) as signals,
        ):

            async def quit_asked() -> None:
                async with anyio.create_task_group() as racers:

                    async def told() -> None:
                        nonlocal was_told
                        async for _ in signals:
                            was_told = True
                            racers.cancel_scope.cancel()

                    racers.start_soon(told)
                    await until_pressed(descriptor, b"qQ")
                    racers.cancel_scope.cancel()

            await show(watch.look, interval_s=interval_s, quit_asked=quit_asked)
    return was_told
