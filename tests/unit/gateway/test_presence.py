"""One gateway per data directory: the lock, and the note beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from gglib.errors import GatewayRunning
from gglib.gateway import presence
from gglib.gateway.presence import hold_presence, read_presence

HOLDER = """
import sys
from pathlib import Path
from gglib.gateway.presence import hold_presence
with hold_presence(Path(sys.argv[1])) as keeper:
    keeper.announce("http://127.0.0.1:1", version="1", started_at=1.0)
    print("announced", flush=True)
    sys.stdin.read()
"""


def test_place_without_a_gateway_has_none(tmp_path: Path) -> None:
    """Looking leaves nothing behind."""
    assert read_presence(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_gateway_is_found_by_its_note_while_it_lives(tmp_path: Path) -> None:
    """Nobody finds it before it listens, or after its end."""
    with hold_presence(tmp_path) as keeper:
        assert read_presence(tmp_path) is None
        keeper.announce("http://127.0.0.1:80", version="1.2", started_at=5.0)
        found = read_presence(tmp_path)
        assert found is not None
        assert (found.address, found.pid, found.version, found.started_at) == (
            "http://127.0.0.1:80",
            os.getpid(),
            "1.2",
            5.0,
        )
        assert found.admin_token == keeper.admin_token
    assert read_presence(tmp_path) is None
    assert not (tmp_path / "gateway.json").exists()


def test_note_is_private_and_its_token_is_not_shown(tmp_path: Path) -> None:
    """The token administers the gateway; each gateway has its own."""
    with hold_presence(tmp_path) as keeper:
        (tmp_path / "gateway.new").write_text("left by a crash")
        (tmp_path / "gateway.new").chmod(0o644)
        keeper.announce("http://x", version="1", started_at=0.0)
        for name in ("gateway.json", "gateway.lock"):
            assert (tmp_path / name).stat().st_mode & 0o077 == 0
        assert not (tmp_path / "gateway.new").exists()
        assert keeper.admin_token not in repr(read_presence(tmp_path)) + repr(keeper)
        first = keeper.admin_token
    with hold_presence(tmp_path) as keeper:
        assert keeper.admin_token != first


def test_second_gateway_is_refused_with_the_firsts_address(tmp_path: Path) -> None:
    """And the first is not disturbed."""
    with hold_presence(tmp_path) as keeper:
        for address in (None, "http://127.0.0.1:9"):
            if address is not None:
                keeper.announce(address, version="1", started_at=0.0)
            with pytest.raises(GatewayRunning) as caught, hold_presence(tmp_path):
                pass
            assert caught.value.address == address
        assert read_presence(tmp_path) is not None


def test_note_of_a_killed_gateway_is_dead(tmp_path: Path) -> None:
    """Its lock ended with it; the next one takes its place."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "announced\n"
        found = read_presence(tmp_path)
        assert found is not None
        assert found.pid == holder.pid
        with pytest.raises(GatewayRunning, match=str(holder.pid)), hold_presence(tmp_path):
            pass
        holder.kill()
        holder.wait()
    note = (tmp_path / "gateway.json").read_bytes()
    assert read_presence(tmp_path) is None
    (tmp_path / "gateway.json").write_bytes(note)
    with hold_presence(tmp_path):
        assert read_presence(tmp_path) is None, "the old note would pass for this gateway's"


def test_look_at_a_dead_note_does_not_keep_a_gateway_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks holds the lock for a moment, which is no gateway."""
    monkeypatch.setattr(presence, "_LOOK_S", 30.0)
    looking = FileLock(tmp_path / "gateway.lock", thread_local=False)
    looking.acquire()
    waiting = threading.Timer(0.05, looking.release)
    waiting.start()
    with hold_presence(tmp_path) as keeper:
        keeper.announce("http://x", version="1", started_at=0.0)
        assert read_presence(tmp_path) is not None
    waiting.join()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"address": 1}',
        json.dumps({"address": "http://x", "pid": "1"}).encode(),
    ],
)
def test_note_that_is_damaged_is_none(tmp_path: Path, content: bytes) -> None:
    """Whatever wrote it."""
    with hold_presence(tmp_path):
        (tmp_path / "gateway.json").write_bytes(content)
        assert read_presence(tmp_path) is None
