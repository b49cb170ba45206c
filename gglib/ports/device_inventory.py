"""The memory of this machine: its own, and that of its accelerators."""

from __future__ import annotations

from abc import ABC, abstractmethod

from gglib.domain.device import Device, DeviceSurvey

__all__ = ["Device", "DeviceInventory", "DeviceSurvey"]


class DeviceInventory(ABC):
    """Tells how much memory there is for models. Looks, and never takes any."""

    __slots__ = ()

    @abstractmethod
    async def survey(self) -> DeviceSurvey:
        """Return every device, read now, with total and free bytes.

        - The machine's own memory, ``cpu``, comes first; accelerators follow in the order in
          which an engine that is started here counts them.
        - Names differ, and a device keeps its name from survey to survey, as long as none is
          added or taken away.
        - Limits that hold for this process hold for what it starts: they are in the sizes.
        - A device whose memory cannot be read is left out, and a line of ``notes`` says so in
          words for people. Nothing about a device is raised as an error.
        - ``machine`` is the kernel's boot id where that can be read, so that a runner which
          leads back to this machine is known to.

        It does not hold up the event loop, may be called at the same time by several tasks,
        and a cancelled call does no harm to later ones.
        """
