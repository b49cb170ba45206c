"""What is known of the memory of other machines, where some runners' servers run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import anyio
import attrs

from gglib.domain.device import Device, DeviceSurvey
from gglib.domain.events import AdapterFailed
from gglib.errors import AdapterError, NodeUnreachable
from gglib.ports.clock import Clock
from gglib.ports.event_sink import EventSink
from gglib.services.machines import Machines, device_of

__all__ = ["FarMemory"]


class FarMemory:
    """What each machine told last: one that cannot be reached keeps what it had."""

    def __init__(self, machines: Machines, *, clock: Clock, events: EventSink) -> None:
        self._machines = machines
        self._clock = clock
        self._events = events
        self._told: dict[str, DeviceSurvey | None] = {}
        self._troubles: dict[str, str] = {}

    def is_here(self, runner: str) -> bool:
        """Return whether the runner has said that its servers run on this machine."""
        return runner in self._told and self._told[runner] is None

    async def of(self, runner: str) -> DeviceSurvey | None:
        """Return what the machine of a runner told last; it is asked if it never did.

        ``None``: it is this machine.

        Raises:
            NodeUnreachable: it never did, and does not now.
        """
        if runner not in self._told:
            self._told[runner] = await self._machines.survey(runner)
        return self._told[runner]

    async def look(self, runners: Iterable[str]) -> dict[str, Device]:
        """Ask the machines of these runners, all at once; return what other machines tell.

        By names such as ``box/cuda0``. A machine that does not answer is left out.
        """
        read: dict[str, DeviceSurvey] = {}

        async def ask(runner: str) -> None:
            try:
                survey = await self._machines.survey(runner)
            except NodeUnreachable:
                # Who needs a server there will be told.
                return
            except AdapterError as error:
                self._tell(runner, str(error))
                return
            self._troubles.pop(runner, None)
            self._told[runner] = survey
            if survey is not None:
                read[runner] = survey

        async with anyio.create_task_group() as tasks:
            for runner in dict.fromkeys(runners):
                if not self.is_here(runner):
                    tasks.start_soon(ask, runner)
        return {
            device_of(runner, device.name): device
            for runner in sorted(read)
            for device in read[runner].devices
        }

    def devices(self) -> dict[str, list[str] | None]:
        """Return the names of devices of each runner elsewhere; ``None`` = not known yet."""
        known: dict[str, list[str] | None] = {}
        for runner in self._machines.names:
            survey = self._told.get(runner)
            if survey is not None:
                known[runner] = [device_of(runner, device.name) for device in survey.devices]
            elif runner not in self._told:
                known[runner] = None
        return known

    def within(self, runner: str, budgets: Mapping[str, int]) -> DeviceSurvey:
        """Return the machine's devices as if their budgets were free: those that have one."""
        survey = self._told.get(runner) or DeviceSurvey()
        devices = [
            attrs.evolve(device, free_bytes=min(budget, device.total_bytes))
            for device in survey.devices
            if (budget := budgets.get(device_of(runner, device.name))) is not None
        ]
        return DeviceSurvey(devices=devices)

    def _tell(self, runner: str, trouble: str) -> None:
        if self._troubles.get(runner) != trouble:
            self._troubles[runner] = trouble
            self._events.emit(
                AdapterFailed(
                    at=self._clock.now(),
                    group="gglib.process_runners",
                    adapter_name=runner,
                    reason=trouble,
                )
            )
