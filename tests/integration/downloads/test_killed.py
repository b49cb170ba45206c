"""A download that is killed at any moment goes on where it was."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import anyio
import pytest
from support.file_server import FileServer, file_server

from gglib.bootstrap import SystemClock
from gglib.ports.downloader import partial_of
from gglib_adapters.downloads import HttpDownloader

#: What a kill may cost: 1 % of the file here.
_LOST_BYTES = 256 << 10
FETCHING = Path(__file__).with_name("fetching.py")


class Gate:
    """Lets a server send so many pieces, then holds it until it is opened."""

    def __init__(self, pieces: int) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.sent_bytes = 0
        self._left = pieces

    def __call__(self) -> None:
        """Be asked by the server, between two pieces."""
        self._left -= 1
        self.sent_bytes += 1 << 16
        if self._left <= 0:
            self.reached.set()
            self.opened.wait(20)


@pytest.mark.parametrize(
    "kills", [3, pytest.param(20, marks=[pytest.mark.soak, pytest.mark.timeout(300)])]
)
@pytest.mark.parametrize("known", [True, False])
def test_killed_download_goes_on_where_it_was(tmp_path: Path, kills: int, known: bool) -> None:
    """At random points: the hash is right, and a kill costs 256 KiB at the most."""
    content = os.urandom(32 << 20)
    sha256 = hashlib.sha256(content).hexdigest()
    target = tmp_path / "big"
    chance = random.Random(kills)
    pieces = len(content) >> 16
    with file_server() as server:
        url = server.put("/big", content)
        kept = []
        for _ in range(kills):
            server.pace = gate = Gate(chance.randrange(1, pieces // kills))
            kill_while_it_fetches(server, gate, url, target, sha256 if known else "")
            kept.append(kept_bytes(target))
        server.pace = lambda: None
        assert not target.exists()
        assert kept == sorted(kept), "no kill costs what came before it"
        anyio.run(fetch, url, target, sha256 if known else None)
        firsts = [request.first_byte for request in server.requests]
    assert hashlib.sha256(target.read_bytes()).hexdigest() == sha256
    assert firsts == [0, *kept], "each goes on where the one before it was"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big"]


def kept_bytes(target: Path) -> int:
    """Return how much of a file has been kept."""
    partial = partial_of(target)
    return partial.stat().st_size if partial.exists() else 0


def kill_while_it_fetches(
    server: FileServer, gate: Gate, url: str, target: Path, sha256: str
) -> None:
    """Begin to fetch in a process of its own, and kill it when the server is at the gate.

    It has written all but a piece of what was sent by then, or this never ends.
    """
    before = len(server.requests)
    process = subprocess.Popen([sys.executable, str(FETCHING), url, str(target), sha256])
    try:
        assert gate.reached.wait(30), "the server was asked"
        # At the last moment before it would have to fetch more than a piece again.
        sent = server.requests[-1].first_byte + gate.sent_bytes
        while not kept_bytes(target) >= sent - _LOST_BYTES:
            time.sleep(0.002)
    finally:
        process.kill()
        process.wait()
        gate.opened.set()
    assert len(server.requests) == before + 1


async def fetch(url: str, target: Path, sha256: str | None) -> None:
    """Fetch it here."""
    downloader = HttpDownloader(clock=SystemClock())
    try:
        await downloader.fetch(url, target, sha256=sha256)
    finally:
        await downloader.aclose()
