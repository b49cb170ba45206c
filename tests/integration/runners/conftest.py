"""What tests of runners share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.far_network import FarNetwork, far_network
from support.servers import processes_of


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run every async test here on both event loops."""
    return str(request.param)


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """Give a data directory; whatever still runs for it at the end is killed, and told of."""
    yield tmp_path
    left = processes_of(tmp_path)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert left == []


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FarNetwork]:
    """Give a network of two machines, over which this one's ssh goes."""
    (tmp_path / "box").mkdir()
    with far_network(tmp_path / "box") as network:
        monkeypatch.setenv("PATH", network.near_path())
        yield network
