"""What ``model scan`` and ``model import`` say while they go, and at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from gglib.cli.options import Common
from gglib.cli.output import print_event, printable, say, tell
from gglib.cli.progress import Bar
from gglib.services.catalog_steps import ScanOutcome, ScanStep

__all__ = ["on_step", "tell_steps"]


def on_step(bar: Bar, common: Common, *, importing: bool = False) -> Callable[[ScanStep], None]:
    """Return what is told of each step, as it is done. ``importing``: with what is left out."""

    def show(step: ScanStep) -> None:
        bar(step.done, step.total, printable(step.model_name or step.path.name))
        if common.json:
            left_out = {"left_out": list(step.left_out)} if importing else {}
            print_event({**_event(step), **left_out})

    return show


def tell_steps(steps: Sequence[ScanStep], common: Common, again: str) -> None:
    """Say what has become of everything. ``again``: how to remove what has vanished."""
    counts = Counter(step.outcome for step in steps)
    if common.json:
        print_event({"event": "finished", **{each.value: counts[each] for each in ScanOutcome}})
        return
    for step in steps:
        _say_step(step, again)
    said = [f"{counts[each]} {each}" for each in ScanOutcome if counts[each]]
    say(", ".join(said) if said else "no models there")


def _event(step: ScanStep) -> dict[str, Any]:
    return {
        "event": step.outcome.value,
        "path": str(step.path),
        "model": step.model_name,
        "reason": step.reason,
        "done": step.done,
        "total": step.total,
    }


def _say_step(step: ScanStep, again: str) -> None:
    path = printable(str(step.path))
    match step.outcome:
        case ScanOutcome.UNCHANGED:
            return
        case ScanOutcome.REFUSED:
            tell(f"refused {path}: {printable(step.reason or '')}")
        case ScanOutcome.VANISHED:
            tell(f"vanished {path}; `gglib model remove {step.model_name}`, or {again}")
        case _:
            say(f"{step.outcome} {step.model_name} ({path})")
    for each in step.left_out:
        tell(f"{step.model_name}: left out {printable(each)}")
