"""A real engine gets as many requests at once as it has slots; the rest wait in the gateway."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import httpx
import pytest
from support.commands import Home, Served
from support.extras import require_embedded_engine

from gglib.domain.ownership import ServerRecord
from gglib.services.demo.tiny_gguf import tiny_gguf
from gglib.testing import make_context
from gglib_adapters.catalog.registry import open_sqlite_registry

pytestmark = pytest.mark.engine

#: What the engine has where nothing is said.
SLOTS = 4
TOKENS = 400


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A place with a tiny model, of which nothing is asked but that it is quick."""
    require_embedded_engine()
    home = Home.make(tmp_path)
    home.configure('[models.tiny]\npath = "tiny.gguf"\nengine = "embedded"\nthreads = 1\n')
    (home.path / "tiny.gguf").write_bytes(tiny_gguf())
    return home


class Sight(NamedTuple):
    """What was seen at one moment: in the gateway twice, and in the engine."""

    in_flight: int
    queued: int
    deferred: int


def stream(served: Served) -> str | None:
    """Read a long answer to its end, and return why it ended."""
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": TOKENS,
        "stream": True,
    }
    with (
        served.client() as client,
        client.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        assert answer.status_code == 200
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    reason: str | None = json.loads(lines[-2])["choices"][0]["finish_reason"]
    return reason


def only_record(home: Home) -> ServerRecord:
    """Return what is on record of the one server."""

    async def read() -> ServerRecord:
        async with open_sqlite_registry(make_context(home.path)) as registry:
            (record,) = await registry.list()
            return record

    return anyio.run(read)


def deferred(engine: httpx.Client) -> int:
    """Return how many requests wait within the engine, by its own account."""
    for line in engine.get("/metrics").text.splitlines():
        name, _, value = line.partition(" ")
        if name == "llamacpp:requests_deferred":
            return int(float(value))
    raise AssertionError("the engine does not tell")


def test_server_gets_as_many_requests_as_it_has_slots(home: Home) -> None:
    """Nobody waits within the engine, where priorities do not hold; everybody is answered."""
    with home.serve() as served, served.client() as gateway, ThreadPoolExecutor(SLOTS + 4) as pool:

        def resident() -> dict[str, Any]:
            (found,) = gateway.get("/running").json()["running"]
            return dict(found)

        assert served.chat("tiny", max_tokens=1).status_code == 200
        before = resident()
        assert (before["slots_total"], before["context_size"]) == (SLOTS, 2048)
        record = only_record(home)
        assert record.handle is not None
        with httpx.Client(
            base_url=record.handle.base_url,
            headers={"authorization": f"Bearer {record.api_key}"},
            trust_env=False,
        ) as engine:
            seen: list[Sight] = []
            # On a busy machine, the first may be over before the last has begun.
            for _ in range(5):
                answers = [pool.submit(stream, served) for _ in range(SLOTS + 4)]
                while not all(answer.done() for answer in answers):
                    now = resident()
                    seen.append(Sight(now["in_flight"], now["queued"], deferred(engine)))
                    time.sleep(0.005)
                assert [answer.result() for answer in answers] == ["length"] * (SLOTS + 4)
                if any(each.queued for each in seen):
                    break
        assert max(each.in_flight for each in seen) == SLOTS
        assert 1 <= max(each.queued for each in seen) <= 4
        assert max(each.deferred for each in seen) == 0
        # A lease ends with the last byte, which the client may have before that is counted.
        deadline = time.monotonic() + 5
        while resident()["in_flight"]:
            assert time.monotonic() < deadline
