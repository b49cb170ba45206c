"""What a real engine keeps of earlier prompts is bounded, and stays so when it is adopted."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest
from support.commands import Home
from support.extras import require_embedded_engine

from gglib.services.demo.tiny_gguf import tiny_gguf

pytestmark = pytest.mark.engine


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A place with a tiny model."""
    require_embedded_engine()
    home = Home.make(tmp_path)
    home.configure('[models.tiny]\npath = "tiny.gguf"\nengine = "embedded"\nthreads = 1\n')
    (home.path / "tiny.gguf").write_bytes(tiny_gguf())
    return home


def cache_ram_of(pid: int) -> str:
    """Return what a server was told."""
    line = psutil.Process(pid).cmdline()
    return line[line.index("--cache-ram") + 1]


def test_engine_is_told_a_bound_and_adopted_with_it(home: Home) -> None:
    """Of its context's size, not llama.cpp's 8 GiB; a gateway that is killed changes nothing."""
    with home.serve() as served:
        assert served.chat("tiny", max_tokens=1).status_code == 200
        (row,) = home.json("ps")
        assert cache_ram_of(row["pid"]) == "1"
        served.process.send_signal(signal.SIGKILL)
        served.process.wait(20)
    with home.serve() as served:
        assert served.chat("tiny", max_tokens=1).status_code == 200
        (again,) = home.json("ps")
        assert again["pid"] == row["pid"]
