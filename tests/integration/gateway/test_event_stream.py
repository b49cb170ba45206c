"""Events and engines' output as server-sent events: they end with their client, and with us."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from support.commands import Home, stub_config
from support.gateway import RawClient, model, open_socket_gateway, running_server
from support.real_gateway import RealGateway, open_real_gateway

from gglib.domain.events import GatewayStarted
from gglib.domain.handle import ProcessHandle
from gglib.gateway import event_stream
from gglib.gateway.event_feed import MAX_WAITING
from gglib.ports.context import RunnerSet
from gglib.services.server_logs import ServerLogs
from gglib_adapters.catalog.memory import MemoryServerRegistry
from gglib_adapters.runners.mock import MockRunner

TOKEN = "Authorization: Bearer admin-token\r\n"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The gateway's own loop."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path)


Told = AsyncGenerator[tuple[str, dict[str, Any]], None]


@asynccontextmanager
async def listening(gateway: RealGateway, path: str) -> AsyncIterator[Told]:
    """Read an event stream for the block."""
    async with gateway.client.stream("GET", path) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"] == "text/event-stream"
        async with aclosing(_told(answer)) as told:
            yield told


async def _told(answer: httpx.Response) -> Told:
    name = ""
    async for line in answer.aiter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


async def get(client: RawClient, path: str, *, extra: str = TOKEN) -> None:
    """Send one GET."""
    await client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n")


async def test_events_are_told_as_they_happen(home: Home) -> None:
    """With their names and fields, beside the log."""
    home.configure(stub_config("a"), "a")
    async with open_real_gateway(home) as gateway, listening(gateway, "/admin/events") as told:
        await gateway.ask("a")
        name, started = await anext(told)
        assert (name, started["model_name"]) == ("server.started", "a")
        name, ready = await anext(told)
        assert (name, ready["server_id"]) == ("server.ready", started["server_id"])
        assert ready["load_s"] == gateway.loads_s("a")[0]
    assert {"server.started", "server.ready"} <= set(gateway.sink.names)


@pytest.mark.parametrize("path", ["/admin/events", "/admin/logs/m"])
async def test_only_the_administrator_listens(path: str) -> None:
    """A client's key has no right to it."""
    async with open_socket_gateway(api_keys=("k",)) as gateway, gateway.connect() as client:
        await get(client, path, extra="")
        assert (await client.read()).status == 401
        await get(client, path, extra="Authorization: Bearer k\r\n")
        assert (await client.read()).status == 403
        assert gateway.feed.listeners == 0


async def test_listener_who_leaves_is_forgotten_at_once() -> None:
    """Nothing is kept for him."""
    async with open_socket_gateway() as gateway:
        async with gateway.connect() as client:
            await get(client, "/admin/events")
            await client.read_until(b":\n\n")
            assert gateway.feed.listeners == 1
        with anyio.fail_after(1):
            while gateway.feed.listeners:
                await anyio.sleep(0.001)


async def test_listener_who_does_not_read_loses_events_and_is_told() -> None:
    """The gateway keeps a bounded number for him."""
    address = "x" * 10_000
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await get(client, "/admin/events")
        await client.read_until(b":\n\n")
        for number in range(20 * MAX_WAITING):
            gateway.feed.emit(GatewayStarted(at=float(number), address=address))
        found = await client.read_until(b"event: dropped\n")
        found = await client.read_until(b'"at":%d.0' % (20 * MAX_WAITING - 1))
    dropped = json.loads(found.partition(b"event: dropped\ndata: ")[2].partition(b"\n")[0])
    assert dropped["count"] == 20 * MAX_WAITING - found.count(b"event: gateway.started") > 0


async def test_streams_end_whole_when_the_gateway_ends() -> None:
    """A graceful end does not wait for what has none."""
    async with open_socket_gateway(shutdown_timeout_s=30.0) as gateway:
        async with gateway.connect() as client:
            await get(client, "/admin/events")
            await client.read_until(b":\n\n")
            gateway.stop()
            with anyio.fail_after(5):
                answer = await client.read()
                assert (answer.status, answer.whole, answer.body) == (200, True, b":\n\n")
                await gateway.server.wait_ended()


async def test_silent_stream_says_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy between would close it otherwise."""
    monkeypatch.setattr(event_stream, "_COMMENT_INTERVAL_S", 0.01)
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        await get(client, "/admin/events")
        found = b""
        while found.count(b":\n\n") < 3:
            client.buffer = found
            await anyio.sleep(0.01)
            found = await client.read_until(b":\n\n") + await client.stream.receive()


# Engines' output


async def test_engines_output_is_told_line_by_line(home: Home) -> None:
    """The last lines, then new ones, and an end when its server has ended."""
    home.configure(stub_config("a", lines=["first", 'a "line"']), "a")
    async with open_real_gateway(home) as gateway:
        await gateway.ask("a")
        resident = await gateway.resident("a")
        assert resident is not None
        async with listening(gateway, "/admin/logs/a?tail=2") as told:
            found = [event async for event in told]
        assert [name for name, _ in found] == ["line", "line", "end"]
        assert found[0][1] == {"text": "listening"}
        assert found[2][1] == {"server_id": resident["server_id"]}
        async with listening(gateway, "/admin/logs/a?tail=1&follow=true") as told:
            name, line = await anext(told)
            assert (name, line["text"].partition(" ")[0]) == ("line", "ready")
            url = f"http://127.0.0.1:{resident['port']}/stub/print"
            async with httpx.AsyncClient(trust_env=False) as engine:
                await engine.post(url, content="naïve\ttext")
            assert await anext(told) == ("line", {"text": "naïve\ttext"})
            await gateway.admin("a", "unload")
            assert await anext(told) == ("end", {"server_id": resident["server_id"]})
        async with listening(gateway, "/admin/logs/a") as told:
            texts = [fields.get("text") async for _, fields in told]
        assert texts[:2] == ["first", 'a "line"']


async def test_output_that_cannot_be_shown_is_an_error(home: Home) -> None:
    """Before anything is sent."""
    home.configure(stub_config("a"), "a")
    async with open_real_gateway(home) as gateway:
        for path, status in (
            ("/admin/logs/a", 409),
            ("/admin/logs/nobody", 404),
            ("/admin/logs/a?tail=-1", 400),
            ("/admin/logs/a?follow=perhaps", 400),
        ):
            answer = await gateway.client.get(path)
            assert answer.status_code == status, path
            assert answer.json()["error"]["message"]


class TalkingRunner(MockRunner):
    """A runner whose servers print for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = 0

    async def logs(
        self, handle: ProcessHandle, *, tail: int = 20, follow: bool = False
    ) -> AsyncIterator[str]:
        """Yield one line, and wait."""
        del handle, tail, follow
        self.reading += 1
        try:
            yield "hello"
            await anyio.sleep_forever()
        finally:
            self.reading -= 1


@pytest.mark.parametrize("ending", ["client", "gateway"])
async def test_reading_an_engines_output_ends_with_its_reader(ending: str) -> None:
    """At once, and no file stays open."""
    registry = MemoryServerRegistry()
    await registry.put(running_server("s1", model(1, "m"), 1).record)
    with TalkingRunner() as runner:
        logs = ServerLogs(registry, RunnerSet({"local": runner}))
        async with open_socket_gateway(logs=logs) as gateway:
            async with gateway.connect() as client:
                await get(client, "/admin/logs/m-alias?follow=true")
                await client.read_until(b'data: {"text":"hello"}\n\n')
                assert runner.reading == 1
                if ending == "gateway":
                    gateway.stop()
                    assert (await client.read()).whole
            with anyio.fail_after(1):
                while runner.reading:
                    await anyio.sleep(0.001)
