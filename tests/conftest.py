"""What all tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# What tests start runs at its users' speed: the coverage that is asked for is the tests' own.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)

# A test's time limit is pytest-timeout's: how long one example takes tells of the machine.
settings.register_profile("whole", deadline=None)
settings.load_profile("whole")

#: Distributions of strangers, with tests of their own: run where they are installed.
collect_ignore = ["third_party"]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of this checkout, once."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=Path(__file__).parents[1], check=True, capture_output=True)
    (found,) = folder.glob("*.whl")
    return found
