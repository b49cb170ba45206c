"""Every process table keeps its port's promises."""

from __future__ import annotations

import pytest

from gglib.testing import ProcessTableContract
from gglib.testing.contracts.process_table import OpenProcessTable
from gglib_adapters.process_table import open_process_table


class TestPsutilProcessTable(ProcessTableContract):
    """What psutil can see."""

    @pytest.fixture
    def open_process_table(self) -> OpenProcessTable:
        return open_process_table
