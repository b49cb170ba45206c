"""gglib's own runners keep the promises of the port."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager

import attrs
import pytest
from conformance.mock_runners import OnPaper
from support.far_machine import FarMachine, far_machine

from gglib.ports.context import AdapterContext
from gglib.ports.process_runner import ProcessRunner
from gglib.testing import ProcessRunnerContract
from gglib.testing.contracts.process_runner import OpenRunner
from gglib_adapters.runners.local import open_local_runner
from gglib_adapters.runners.ssh import open_ssh_runner


class TestLocalRunner(ProcessRunnerContract):
    """Processes of this machine."""

    settings = {"stop_grace_s": 0.2}

    @pytest.fixture
    def open_runner(self) -> OpenRunner:
        """Open the local runner."""
        return open_local_runner


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarMachine]:
    """Give a machine behind an OpenSSH server."""
    with far_machine(tmp_path_factory.mktemp("box")) as machine:
        yield machine


class TestSshRunner(ProcessRunnerContract):
    """Processes of another machine: of this one, behind an OpenSSH server."""

    backends = ("asyncio",)

    @pytest.fixture
    def open_runner(self, machine: FarMachine) -> OpenRunner:
        """Open the SSH runner."""

        def open_there(context: AdapterContext) -> AbstractAsyncContextManager[ProcessRunner]:
            settings = {**machine.settings, "stop_grace_s": 0.2}
            return open_ssh_runner(attrs.evolve(context, settings=settings))

        return open_there


@pytest.mark.soak
class TestSshRunnerOnTrio(TestSshRunner):
    """The same on the other event loop."""

    backends = ("trio",)


class TestMockRunner(OnPaper, ProcessRunnerContract):
    """Servers on paper."""
