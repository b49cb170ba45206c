"""A real engine that stops answering is recycled, and nobody is left waiting for it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.commands import Home, Served
from support.extras import require_embedded_engine

from gglib.services.demo.tiny_gguf import tiny_gguf

pytestmark = pytest.mark.engine

CONFIGURATION = """
[pool]
health_check_interval_s = 0.3
[runners.local]
health_timeout_s = 0.3
stop_grace_s = 0.3
[models.tiny]
path = "tiny.gguf"
engine = "embedded"
threads = 1
parallel = 2
context_size = 16384
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A place with a tiny model whose server is asked often how it is."""
    require_embedded_engine()
    home = Home.make(tmp_path)
    home.configure(CONFIGURATION)
    (home.path / "tiny.gguf").write_bytes(tiny_gguf())
    return home


def running(served: Served) -> dict[str, Any]:
    """Return what the gateway says of the one server."""
    with served.client() as client:
        (row,) = client.get("/running").json()["running"]
    found: dict[str, Any] = row
    return found


def until(condition: Callable[[], bool]) -> None:
    """Return when it holds, or fail."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline


def test_engine_that_hangs_is_recycled_and_everyone_is_answered(home: Home) -> None:
    """An answer in progress ends with an error that says so; the others get whole ones."""
    with home.serve() as served, ThreadPoolExecutor() as clients:
        assert served.chat("tiny").status_code == 200
        before = running(served)
        body = {
            "model": "tiny",
            "messages": [{"role": "user", "content": "hi"}],
            "max_tokens": 8000,
            "ignore_eos": True,
            "stream": True,
        }
        with (
            served.client() as client,
            client.stream("POST", "/v1/chat/completions", json=body) as answer,
        ):
            lines = answer.iter_lines()
            next(lines)
            os.kill(before["pid"], signal.SIGSTOP)
            hung = clients.submit(served.chat, "tiny")
            until(lambda: running(served)["in_flight"] == 2)
            waiting = clients.submit(served.chat, "tiny")
            told = [json.loads(line.removeprefix("data: ")) for line in lines if line][-1]
        for whole in (hung.result(), waiting.result()):
            assert isinstance(whole, httpx.Response)
            assert whole.status_code == 200
            assert whole.json()["choices"][0]["message"]["content"]
        assert told["error"]["code"] == "engine_died"
        assert "no longer answered health checks" in told["error"]["message"]
        after = running(served)
        assert after["server_id"] != before["server_id"]
        with pytest.raises(ProcessLookupError):
            os.kill(before["pid"], 0)
        token = json.loads((home.path / "gateway.json").read_text())["admin_token"]
        with served.client() as client:
            headers = {"Authorization": f"Bearer {token}"}
            pool = client.get("/admin/pool", headers=headers).json()
        assert pool["metrics"]["evictions"] == {"unhealthy": 1}
        assert pool["residents"][0]["memory_observed_bytes"] > 2**20
        assert pool["residents"][0]["memory_bytes"]["cpu"] > 2**20
