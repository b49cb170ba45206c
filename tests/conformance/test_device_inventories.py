"""The system's device inventory keeps the port's promises."""

from __future__ import annotations

import pytest

from gglib.testing import DeviceInventoryContract
from gglib.testing.contracts.device_inventory import OpenDeviceInventory
from gglib_adapters.devices.system import open_system_devices


class TestSystemDeviceInventory(DeviceInventoryContract):
    """What this machine has."""

    @pytest.fixture
    def open_inventory(self) -> OpenDeviceInventory:
        return open_system_devices
