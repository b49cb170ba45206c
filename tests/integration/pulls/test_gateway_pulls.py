"""Models pulled through a running gateway: followed, left, given up, gone on with."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import httpx
import pytest
from support.commands import Home, gglib
from support.hub import LocalHub
from support.pulled import files_below, model_bytes
from support.real_gateway import RealGateway, open_real_gateway, until

pytestmark = pytest.mark.anyio

_NAME = "tiny-Q4_K_M.gguf"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def environment(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the gateway of this process pull from the hub of the test."""
    for name in ("HF_ENDPOINT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HOME"):
        monkeypatch.setenv(name, home.environment[name])


async def events_of(gateway: RealGateway, **asked: Any) -> list[tuple[str, dict[str, Any]]]:
    """Have something pulled, and return the events until the stream ends."""
    response = await gateway.client.post("/admin/models/pull", json=asked)
    assert response.status_code == 200, response.text
    found = []
    for block in response.text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


async def downloads(gateway: RealGateway) -> list[dict[str, Any]]:
    """Return what the gateway lists."""
    answer = await gateway.client.get("/admin/models/downloads")
    found: list[dict[str, Any]] = answer.json()["downloads"]
    return found


async def test_pull_is_told_until_the_model_can_be_asked(hub: LocalHub, home: Home) -> None:
    """States and bytes, in order; afterwards the model is listed."""
    content = model_bytes(4 << 20)
    hub.add("acme/tiny", {_NAME: content})
    hub.bytes_per_s = 8 << 20
    async with open_real_gateway(home) as gateway:
        events = await events_of(gateway, model="acme/tiny", name="mine")

        states = list(dict.fromkeys(state for state, _ in events))
        assert states[-2:] == ["running", "done"]
        done = [told["done_bytes"] for _, told in events]
        assert done == sorted(done)
        assert any(0 < each < len(content) for each in done)
        assert done[-1] == events[-1][1]["total_bytes"] == len(content)
        models = (await gateway.client.get("/v1/models")).json()["data"]
        assert [each["id"] for each in models] == ["mine"]
        assert [state for state, _ in await events_of(gateway, model="acme/tiny")] == ["current"]


async def test_bad_requests_are_refused(hub: LocalHub, home: Home) -> None:
    """In OpenAI's form, with codes; nothing is queued."""
    hub.add("acme/tiny", {_NAME: model_bytes()})
    async with open_real_gateway(home) as gateway:

        async def ask(**asked: Any) -> tuple[int, str]:
            response = await gateway.client.post("/admin/models/pull", json=asked)
            return response.status_code, response.json()["error"]["code"]

        assert await ask(model="acme/none") == (404, "repository_not_found")
        assert await ask(model="acme/tiny:Q9") == (404, "quantization_not_found")
        assert (await ask(model="../../etc/passwd"))[0] == 400
        assert (await ask(model="acme/tiny", name="a/../b"))[0] == 400
        assert (await ask(model="acme/tiny", path="/etc"))[0] == 400
        assert (await ask(model=7))[0] == 400
        assert await downloads(gateway) == []
        gone = await gateway.client.delete("/admin/models/downloads/none")
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "pull_not_found")
        async with httpx.AsyncClient(base_url=gateway.address, trust_env=False) as stranger:
            for method, path in (
                ("POST", "/admin/models/pull"),
                ("GET", "/admin/models/downloads"),
                ("DELETE", "/admin/models/downloads/x"),
            ):
                assert (await stranger.request(method, path)).status_code == 401


async def test_pull_goes_on_when_its_client_leaves(hub: LocalHub, home: Home) -> None:
    """Whoever asked is not waited for."""
    hub.add("acme/tiny", {_NAME: model_bytes(2 << 20)})
    hub.bytes_per_s = 4 << 20
    async with open_real_gateway(home) as gateway:
        asked = {"model": "acme/tiny"}
        async with gateway.client.stream("POST", "/admin/models/pull", json=asked) as response:
            async for line in response.aiter_lines():
                if line == "event: running":
                    break

        async def is_done() -> bool:
            return [each["state"] for each in await downloads(gateway)] == ["done"]

        await until(is_done)


async def test_pull_that_is_given_up_ends_and_leaves_nothing(hub: LocalHub, home: Home) -> None:
    """Also while it is fetched; the next in the queue has its turn."""
    hub.add("acme/huge", {"huge-Q4_K_M.gguf": model_bytes(8 << 20)})
    hub.add("acme/tiny", {_NAME: model_bytes()})
    hub.bytes_per_s = 1 << 20
    async with open_real_gateway(home) as gateway:
        asked = {"model": "acme/huge"}
        async with gateway.client.stream("POST", "/admin/models/pull", json=asked) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: ") and json.loads(line[6:])["done_bytes"]:
                    break
            pull_id = json.loads(line[6:])["id"]
            answer = await gateway.client.delete(f"/admin/models/downloads/{pull_id}")
            assert answer.json() == {"id": pull_id, "state": "cancelled"}
        assert (await events_of(gateway, model="acme/tiny"))[-1][0] == "done"
        assert files_below(home) == [_NAME]


async def test_next_gateway_goes_on_with_the_queue(hub: LocalHub, home: Home) -> None:
    """What one did not end, the next one does, without fetching again what is there."""
    content = model_bytes(8 << 20)
    hub.add("acme/tiny", {_NAME: content})
    hub.bytes_per_s = 8 << 20
    async with open_real_gateway(home) as gateway:
        asked = {"model": "acme/tiny"}
        async with gateway.client.stream("POST", "/admin/models/pull", json=asked) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: ") and json.loads(line[6:])["done_bytes"]:
                    break
    hub.bytes_per_s = None
    assert json.loads(line[6:])["done_bytes"] < len(content)
    async with open_real_gateway(home) as gateway:

        async def is_done() -> bool:
            return [each["state"] for each in await downloads(gateway)] == ["done"]

        await until(is_done)
    assert hub.sent_bytes <= 1.1 * len(content)


async def test_command_line_pulls_through_the_gateway(hub: LocalHub, home: Home) -> None:
    """With the same words and exit statuses as alone; it lists what the gateway has."""
    hub.add("acme/tiny", {_NAME: model_bytes()})
    hub.add("acme/gated", {_NAME: model_bytes()}, gated=True)
    async with open_real_gateway(home):
        done, again, none, gated, listed = [
            await _run(home, *arguments)
            for arguments in (
                ("pull", "acme/tiny"),
                ("pull", "acme/tiny"),
                ("pull", "acme/none"),
                ("pull", "acme/gated"),
                ("downloads", "--json"),
            )
        ]
    assert (done.returncode, done.stdout[:18]) == (0, "pulled tiny-Q4_K_M"), done.stderr
    assert (again.returncode, "is the newest" in again.stdout) == (0, True)
    assert (none.returncode, "no repository acme/none" in none.stderr) == (3, True)
    assert (gated.returncode, "is gated" in gated.stderr) == (4, True)
    assert [each["state"] for each in json.loads(listed.stdout)] == ["done", "failed"]


async def _run(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    import anyio

    done = await anyio.run_process(
        [gglib(), "model", *arguments], env=dict(home.environment), check=False
    )
    return subprocess.CompletedProcess(
        arguments, done.returncode, done.stdout.decode(), done.stderr.decode()
    )
