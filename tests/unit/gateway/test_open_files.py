"""The limit of open files, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

resource = pytest.importorskip("resource")

PROGRAM = """
import resource
from gglib.gateway.open_files import allow_many_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, 512))
allow_many_open_files()
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize("soft", [128, 512])
def test_gateway_may_open_as_many_files_as_the_system_allows(soft: int) -> None:
    """Whatever the limit was for this user's programs."""
    program = PROGRAM.format(soft=soft)
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "(512, 512)"
