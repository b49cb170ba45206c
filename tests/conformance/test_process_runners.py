"""gglib's own runners keep the promises of the port."""

from __future__ import annotations

import pytest
from conformance.mock_runners import OnPaper

from gglib.testing import ProcessRunnerContract
from gglib.testing.contracts.process_runner import OpenRunner
from gglib_adapters.runners.local import open_local_runner


class TestLocalRunner(ProcessRunnerContract):
    """Processes of this machine."""

    settings = {"stop_grace_s": 0.2}

    @pytest.fixture
    def open_runner(self) -> OpenRunner:
        """Open the local runner."""
        return open_local_runner


class TestMockRunner(OnPaper, ProcessRunnerContract):
    """Servers on paper."""
