"""What every device inventory promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeAlias

import anyio
import anyio.lowlevel
import pytest

from gglib.ports.context import AdapterContext
from gglib.ports.device_inventory import Device, DeviceInventory, DeviceSurvey
from gglib.testing.contexts import make_context
from gglib.testing.contracts.backends import CANCEL_AFTER, Contract, cancelled_after

__all__ = ["DeviceInventoryContract", "OpenDeviceInventory"]

#: A device inventory adapter's factory.
OpenDeviceInventory: TypeAlias = Callable[
    [AdapterContext], AbstractAsyncContextManager[DeviceInventory]
]

_PATIENCE_S = 30.0
_AT_ONCE = 5


class DeviceInventoryContract(Contract):
    """What every device inventory keeps.

    Subclass it in a test module under a name that begins with ``Test``, and override the
    fixture ``open_inventory``::

        class TestMyInventory(DeviceInventoryContract):
            @pytest.fixture
            def open_inventory(self):
                return open_my_inventory
    """

    least_bytes: int = 64 * 2**20
    """What a machine that runs the tests has at the least: less was not counted in bytes."""

    longest_hold_s: float = 0.25
    """For how long a survey may hold up the event loop."""

    @pytest.fixture
    def open_inventory(self) -> OpenDeviceInventory:
        """Return the adapter's factory."""
        raise NotImplementedError("override the fixture open_inventory: return your factory")

    @pytest.fixture
    def context(self, tmp_path: Path) -> AdapterContext:
        """Return what the factory is given; override it for an adapter with settings."""
        return make_context(tmp_path)

    @pytest.fixture
    async def inventory(
        self, open_inventory: OpenDeviceInventory, context: AdapterContext
    ) -> AsyncIterator[DeviceInventory]:
        """Open the inventory."""
        async with open_inventory(context) as inventory:
            yield inventory

    async def test_opened_inventory_is_of_the_port(self, inventory: DeviceInventory) -> None:
        """The factory's context manager gives a ``DeviceInventory``."""
        assert isinstance(inventory, DeviceInventory), (
            "bootstrap takes subclasses of DeviceInventory only"
        )

    async def test_survey_has_devices_and_notes(self, inventory: DeviceInventory) -> None:
        """As values of the port."""
        survey = await inventory.survey()

        assert isinstance(survey, DeviceSurvey), "survey() must return a DeviceSurvey"
        assert all(isinstance(device, Device) for device in survey.devices), (
            "devices must be Devices"
        )
        assert all("\n" not in note for note in survey.notes), "notes must be lines of text"

    async def test_the_machines_own_memory_comes_first(self, inventory: DeviceInventory) -> None:
        """Under the name ``cpu``, once."""
        survey = await inventory.survey()

        assert survey.devices, "every machine has memory"
        assert survey.devices[0].name == "cpu", "the machine's own memory must come first"
        kinds = [device.kind for device in survey.devices]
        assert kinds.count("cpu") == 1, "the machine's own memory must be there once"

    async def test_sizes_are_bytes(self, inventory: DeviceInventory) -> None:
        """A machine that runs this has more than a few."""
        for device in (await inventory.survey()).devices:
            assert device.total_bytes >= self.least_bytes, (
                f"{device.name} has {device.total_bytes} bytes in all: must be bytes"
            )
            assert 0 <= device.free_bytes <= device.total_bytes, (
                f"{device.name}: free memory must be within the total"
            )

    async def test_device_names_differ(self, inventory: DeviceInventory) -> None:
        """An estimate says by name what it needs where."""
        names = [device.name for device in (await inventory.survey()).devices]

        assert len(set(names)) == len(names), "names of devices must differ"

    async def test_device_keeps_its_name(
        self,
        inventory: DeviceInventory,
        open_inventory: OpenDeviceInventory,
        context: AdapterContext,
    ) -> None:
        """From survey to survey, by another opening too."""
        async with open_inventory(context) as other:
            surveys = [await each.survey() for each in (inventory, inventory, other)]

        seen = {tuple((each.name, each.kind) for each in survey.devices) for survey in surveys}
        assert len(seen) == 1, "a device must keep its name and kind"

    async def test_surveys_at_once_agree(self, inventory: DeviceInventory) -> None:
        """Several tasks may ask."""
        surveys: list[DeviceSurvey] = []

        async def survey() -> None:
            surveys.append(await inventory.survey())

        with anyio.fail_after(_PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                for _ in range(_AT_ONCE):
                    tasks.start_soon(survey)

        seen = {tuple(device.name for device in survey.devices) for survey in surveys}
        assert len(seen) == 1, "surveys at the same time must agree"

    async def test_event_loop_is_not_held_up(self, inventory: DeviceInventory) -> None:
        """Other tasks go on while a driver takes its time."""
        done = anyio.Event()
        longest_s = 0.0

        async def watch() -> None:
            nonlocal longest_s
            before = anyio.current_time()
            while not done.is_set():
                await anyio.lowlevel.checkpoint()
                now = anyio.current_time()
                longest_s, before = max(longest_s, now - before), now

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            await anyio.lowlevel.checkpoint()
            await inventory.survey()
            done.set()

        assert longest_s <= self.longest_hold_s, (
            f"survey() must not hold up the event loop: it did so for {longest_s:.2f} s"
        )

    @pytest.mark.parametrize("steps", CANCEL_AFTER)
    async def test_cancelled_survey_does_no_harm(
        self, inventory: DeviceInventory, steps: int
    ) -> None:
        """The next one is whole."""
        whole = await inventory.survey()
        await cancelled_after(steps, inventory.survey)

        with anyio.fail_after(_PATIENCE_S):
            after = await inventory.survey()
        assert [each.name for each in after.devices] == [each.name for each in whole.devices], (
            "a survey after a cancelled one must be whole"
        )
