"""Progress bars: on a terminal's standard error, and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["Bar", "progress"]


class Bar(Protocol):
    """What is told of the work."""

    def __call__(self, done: float, total: float, what: str) -> None:
        """So much is done, of so much; ``what`` is at hand."""


@contextmanager
def progress(title: str, *, in_bytes: bool = False, shown: bool = True) -> Iterator[Bar]:
    """Hold a bar for the block; it is gone afterwards. ``in_bytes``: with speed and time left."""
    if not (shown and sys.stderr.isatty()):
        yield _nothing
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn()]
    if in_bytes:
        columns += [DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn()]
    else:
        columns += [MofNCompleteColumn()]
    columns.append(TextColumn("{task.fields[what]}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=None, what="")

        def tell(done: float, total: float, what: str) -> None:
            bars.update(task, completed=done, total=total, what=what)

        yield tell


def _nothing(done: float, total: float, what: str) -> None:
    del done, total, what
