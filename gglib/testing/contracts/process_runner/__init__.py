"""Every promise of ``ProcessRunner``, as a test that its adapters inherit."""

from __future__ import annotations

from gglib.testing.contracts.process_runner.behaviour import (
    COMPLAINTS,
    LAST_WORDS,
    OUTPUT,
    Behaviour,
)
from gglib.testing.contracts.process_runner.ending import EndPromises
from gglib.testing.contracts.process_runner.health import HealthPromises
from gglib.testing.contracts.process_runner.identity import IdentityPromises
from gglib.testing.contracts.process_runner.kit import OpenRunner, RunnerKit
from gglib.testing.contracts.process_runner.listing import ListingPromises
from gglib.testing.contracts.process_runner.output import OutputPromises
from gglib.testing.contracts.process_runner.starting import StartPromises
from gglib.testing.contracts.process_runner.stopping import StopPromises

__all__ = [
    "COMPLAINTS",
    "LAST_WORDS",
    "OUTPUT",
    "Behaviour",
    "OpenRunner",
    "ProcessRunnerContract",
    "RunnerKit",
]


class ProcessRunnerContract(
    StartPromises,
    StopPromises,
    IdentityPromises,
    HealthPromises,
    ListingPromises,
    EndPromises,
    OutputPromises,
):
    """What every process runner keeps.

    Subclass it in a test module under a name that begins with ``Test``, override the fixture
    ``open_runner``, and say by the class attributes what your runner can do::

        class TestMyRunner(ProcessRunnerContract):
            settings = {"stop_grace_s": 0.2}

            @pytest.fixture
            def open_runner(self):
                return open_my_runner

    A runner that does not run its engine's command overrides ``prepare`` too: it makes the next
    start of a configuration behave as the test needs. If it keeps output, it overrides ``say`` as
    well: it makes a running server print a line.
    """
