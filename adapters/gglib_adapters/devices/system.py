"""The devices of this machine: its own memory, and NVIDIA GPUs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.to_thread
import psutil

from gglib.ports.context import AdapterContext
from gglib.ports.device_inventory import DeviceInventory, DeviceSurvey
from gglib_adapters.devices.control_groups import read_text
from gglib_adapters.devices.machine_memory import machine_memory
from gglib_adapters.devices.nvidia import Gpus, NvidiaGpus

__all__ = ["SystemDeviceInventory", "open_system_devices"]


class SystemDeviceInventory(DeviceInventory):
    """Reads ``/proc`` and control groups below ``root`` (else psutil), and asks ``gpus``."""

    __slots__ = ("_gpus", "_root", "_wait_s")

    def __init__(self, root: Path, gpus: NvidiaGpus, *, wait_s: float = 10) -> None:
        """``wait_s``: how long a GPU's driver may take to answer."""
        self._root = root
        self._gpus = gpus
        self._wait_s = wait_s

    async def survey(self) -> DeviceSurvey:
        """See ``DeviceInventory``."""
        devices, notes = [], []
        try:
            devices.append(await anyio.to_thread.run_sync(machine_memory, self._root))
        except (OSError, ValueError, psutil.Error) as error:
            notes.append(f"cpu: its memory cannot be read ({error})")
        gpus = Gpus(notes=(f"NVIDIA GPUs: the driver has not answered for {self._wait_s:g} s",))
        with anyio.move_on_after(self._wait_s):
            # A thread that is stuck in a driver cannot be ended: it is left behind.
            gpus = await anyio.to_thread.run_sync(self._gpus.survey, abandon_on_cancel=True)
        return DeviceSurvey(
            devices=(*devices, *gpus.devices),
            notes=(*notes, *gpus.notes),
            machine=await anyio.to_thread.run_sync(_boot_id, self._root),
        )


def _boot_id(root: Path) -> str | None:
    """Return what the kernel calls its run, on systems that do."""
    return read_text(root / "proc/sys/kernel/random/boot_id").strip() or None


@asynccontextmanager
async def open_system_devices(context: AdapterContext) -> AsyncIterator[SystemDeviceInventory]:
    """Open the inventory of this machine; it has no settings."""
    del context
    gpus = NvidiaGpus(os.environ)
    try:
        yield SystemDeviceInventory(Path("/"), gpus)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(gpus.close)
