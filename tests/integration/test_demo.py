"""``gglib demo``: the first thing that somebody runs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import psutil
import pytest
from support.commands import gglib
from support.extras import require_embedded_engine

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_demo_answers_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """A real answer, status 0; no process, no folder, nothing in the user's own place."""
    require_embedded_engine()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("GGLIB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    (tmp_path / "tmp").mkdir()
    done = subprocess.run(
        [gglib(), "demo", *arguments], capture_output=True, text=True, check=False, timeout=50
    )
    assert (done.returncode, done.stderr) == (0, "")
    if arguments:
        report = json.loads(done.stdout)
        assert list(report) == ["write", "add", "engine", "gateway", "chat", "embedding", "stop"]
        assert report["engine"]["name"] == "embedded"
        assert report["chat"]["characters"] == 24
        assert report["embedding"]["dimensions"] == 64
    else:
        assert "streamed a chat completion" in done.stdout
        assert "gglib model add PATH" in done.stdout
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not (tmp_path / "home").exists()
    assert not (tmp_path / "user").exists()
    assert processes_with(str(tmp_path)) == []


def processes_with(text: str) -> list[int]:
    """Return the pids whose environment or arguments hold ``text``."""
    found = []
    for process in psutil.process_iter():
        try:
            seen = " ".join([*process.cmdline(), *process.environ().values()])
            if text in seen and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return [pid for pid in found if pid != psutil.Process().pid]
