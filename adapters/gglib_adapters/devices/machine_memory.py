"""The machine's own memory: what the kernel has, within what control groups allow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil

from gglib.domain.device import CPU, Device
from gglib_adapters.devices.control_groups import group_limits, read_text

__all__ = ["Reading", "machine_memory", "read_with_psutil"]

#: Total and free bytes.
Reading = tuple[int, int]


def read_with_psutil() -> Reading:
    """Return the machine's memory as psutil tells it, on any system."""
    memory = psutil.virtual_memory()
    return int(memory.total), int(memory.available)


def machine_memory(root: Path, otherwise: Callable[[], Reading] = read_with_psutil) -> Device:
    """Return the machine's own memory as a device.

    The kernel's ``MemTotal`` and ``MemAvailable`` count, and every limit of a control group
    on the way from this process up to ``root``'s mount; of each size, the smallest. Where
    there is no ``/proc/meminfo`` it is what ``otherwise`` says.

    Raises:
        OSError, psutil.Error: nothing tells.

    Source: proc_meminfo(5); MemAvailable is what can be had without swapping.
    """
    total, free = _meminfo(root) or otherwise()
    description = ""
    for limit in group_limits(root):
        if limit.limit_bytes < total:
            total = limit.limit_bytes
            description = f"limited by control group {limit.group}"
        free = min(free, limit.free_bytes)
    return Device(
        name=CPU,
        kind=CPU,
        total_bytes=total,
        free_bytes=max(0, min(free, total)),
        description=description,
    )


def _meminfo(root: Path) -> Reading | None:
    values = {}
    for line in read_text(root / "proc/meminfo").splitlines():
        key, _, rest = line.partition(":")
        number, _, unit = rest.strip().partition(" ")
        if unit == "kB" and number.isascii() and number.isdecimal() and len(number) <= 20:
            values[key] = int(number) * 1024
    total, free = values.get("MemTotal"), values.get("MemAvailable")
    if total is None or free is None:
        return None
    return total, free
