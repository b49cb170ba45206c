"""A hub, and somebody who pulls from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import Home
from support.hub import LocalHub, local_hub
from support.pulled import home_for


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    """Run a hub on this machine."""
    with local_hub() as hub:
        yield hub


@pytest.fixture
def home(tmp_path: Path, hub: LocalHub) -> Home:
    """Return a data directory that pulls from it."""
    return home_for(tmp_path, hub)
