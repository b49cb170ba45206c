"""What this process holds: objects by type, open files, memory; and whether it grows."""

from __future__ import annotations

import gc
import os
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

__all__ = ["grown_objects", "objects_by_type", "open_files", "rss_bytes", "slope"]


def objects_by_type() -> Counter[str]:
    """Return how many objects there are of each type that the collector knows.

    The first look makes some itself: look twice before what is to be compared.
    """
    gc.collect()
    return Counter(
        f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects()
    )


def grown_objects(base: Counter[str], *, tolerance: int) -> dict[str, int]:
    """Return of which types there are more by ``tolerance`` than there were."""
    now = objects_by_type()
    return {name: n - base[name] for name, n in now.items() if n - base[name] > tolerance}


def open_files() -> int:
    """Return how many files and sockets are open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the names alone are asked for


def rss_bytes() -> int:
    """Return how much memory is resident."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def slope(values: Sequence[float]) -> float:
    """Return by how much each value is above the one before it, by least squares."""
    return statistics.linear_regression(range(len(values)), values).slope
