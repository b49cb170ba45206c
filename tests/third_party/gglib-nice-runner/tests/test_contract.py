"""The nice runner keeps the promises of its port."""

import psutil
import pytest
from gglib_nice_runner import open_nice_runner

from gglib.testing import ProcessRunnerContract


class TestNiceRunner(ProcessRunnerContract):
    settings = {"stop_grace_s": 0.2, "niceness": 7}
    knows_exit_status = False
    knows_files = False

    @pytest.fixture
    def open_runner(self):
        return open_nice_runner

    async def test_server_gives_way(self, kit, runner):
        handle = await kit.start(runner)
        assert psutil.Process(handle.pid).nice() == 7
