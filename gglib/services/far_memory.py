"""What is known of the memory of other machines, where some runners' servers run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import anyio
import attrs

from gglib.domain.device import CPU, Device, DeviceSurvey
from gglib.domain.events import AdapterFailed
from gglib.errors import AdapterError, NodeUnreachable
from gglib.ports.clock import Clock
from gglib.ports.event_sink import EventSink
from gglib.services.machines import Machines, device_of

__all__ = ["FarMemory"]


class FarMemory:
    """What each machine told last: one that cannot be reached keeps what it had.

    Its devices carry the runner's name, ``box/cuda0``. Where runners lead to one machine, it is
    that of the first that told; where it is this machine, devices have the names they have here.
    """

    def __init__(self, machines: Machines, *, clock: Clock, events: EventSink) -> None:
        self._machines = machines
        self._clock = clock
        self._events = events
        self._told: dict[str, DeviceSurvey | None] = {}
        """By runner, in the order in which they first did."""
        self._troubles: dict[str, str] = {}
        self.here = DeviceSurvey()
        """What this machine has, as far as it was told."""

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
        read: dict[str, DeviceSurvey | None] = {}

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
            read[runner] = survey

        async with anyio.create_task_group() as tasks:
            for runner in dict.fromkeys(runners):
                if not self.is_here(runner):
                    tasks.start_soon(ask, runner)
        # Not in the order of their answers, which is another each time.
        for runner in self._machines.names:
            if runner in read:
                self._told[runner] = read[runner]
        found: dict[str, Device] = {}
        for runner in self._told:
            survey = read.get(runner)
            names = self.names(runner)
            for device in () if survey is None else survey.devices:
                found.setdefault(names[device.name], device)
        here = {device.name for device in self.here.devices}
        return {name: device for name, device in found.items() if name not in here}

    def names(self, runner: str) -> Mapping[str, str]:
        """Return what the devices of a runner's machine are called here, by their names there."""
        survey = self._told.get(runner)
        if survey is None:
            return {}
        return {device.name: self._name(runner, survey, device) for device in survey.devices}

    def name(self, name: str) -> str:
        """Return what the device is called that may also be called ``name``."""
        runner, _, device = name.partition("/")
        return self.names(runner).get(device, name)

    def _name(self, runner: str, survey: DeviceSurvey, device: Device) -> str:
        if survey.machine is not None:
            if survey.machine == self.here.machine and (same := _same(device, self.here)):
                return same.name
            for first, told in self._told.items():
                if first == runner:
                    break
                if told is None or told.machine != survey.machine:
                    continue
                if same := _same(device, told):
                    return device_of(first, same.name)
        return device_of(runner, device.name)

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
        names = self.names(runner)
        devices = [
            attrs.evolve(device, free_bytes=min(budget, device.total_bytes))
            for device in survey.devices
            if (budget := budgets.get(names[device.name])) is not None
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


def _same(device: Device, there: DeviceSurvey) -> Device | None:
    """Return what is the same device as another runner to its machine tells it."""
    for each in there.devices:
        if device.kind == CPU or device.identifier is None or each.identifier is None:
            if each.name == device.name:
                return each
        elif each.identifier == device.identifier:
            return each
    return None
