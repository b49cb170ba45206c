"""Settings reloaded under a running gateway, with real servers: what did not change goes on."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from support.commands import Home, stub_config
from support.real_gateway import RealGateway, open_real_gateway, until

from gglib.domain.events import ConfigReloaded, ConfigReloadFailed, ServerStopped

ROOMY = "[pool]\nmax_size = 5\n[routing]\nplanner = 'count'\n"
#: Makes another server of a model.
OTHERWISE = 'environment = {MODE = "other"}'


@pytest.fixture
def anyio_backend() -> str:
    """The gateway's own loop."""
    return "asyncio"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Models a and b, and files for more."""
    home = Home.make(tmp_path)
    home.configure(config("a", "b"), "a", "b", "c")
    return home


def config(*models: str, gateway: str = "", **options: Any) -> str:
    """Return a configuration of these models."""
    return stub_config(*models, extra=f"[gateway]\n{gateway}\n{ROOMY}", **options)


def with_key(text: str, model: str, line: str) -> str:
    """Return a configuration in which a model says one thing more."""
    return re.sub(rf"(?m)^\[models\.{model}\]$", f"[models.{model}]\n{line}", text)


async def reload(gateway: RealGateway) -> dict[str, Any]:
    """Have the gateway reload; it must succeed."""
    answer = await gateway.client.post("/admin/config/reload")
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def pid_of(gateway: RealGateway, model: str) -> int:
    """Return the process of a model's server."""
    resident = await gateway.resident(model)
    assert resident is not None
    pid: int = resident["pid"]
    return pid


class Stream:
    """An answer that comes in pieces: one has come, the others are to be asked for."""

    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.aiter_lines()

    async def begin(self) -> None:
        """Return when the first piece is there."""
        assert (await anext(self._lines)).startswith("data: ")

    async def rest(self) -> list[str]:
        """Return what comes after it, to the end."""
        return [line async for line in self._lines if line]


@asynccontextmanager
async def streaming(
    gateway: RealGateway, model: str, takes_s: float = 3.0
) -> AsyncIterator[Stream]:
    """Have a stream of a model under way: it lasts longer than any reload."""
    body = {"model": model, "messages": [], "stream": True, "takes_s": takes_s}
    async with gateway.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        stream = Stream(answer)
        await stream.begin()
        yield stream


async def test_untouched_stream_goes_on_while_models_come_change_and_go(home: Home) -> None:
    """Its server keeps its process; the changed one's is another; the removed one is unknown."""
    home.configure(config("a", "b", "d"), "d")
    async with open_real_gateway(home) as gateway:
        await gateway.ask("b")
        await gateway.ask("d")
        async with streaming(gateway, "a") as stream:
            pids = {name: await pid_of(gateway, name) for name in "ab"}
            home.configure(with_key(config("a", "b", "c"), "b", OTHERWISE))
            told = await reload(gateway)
            assert sorted(told["changed"]) == ["models.b.environment", "models.c", "models.d"]
            assert told["at_next_start"] == []
            await gateway.ask("c")
            await gateway.ask("b")
            assert await pid_of(gateway, "b") != pids["b"]
            gone = await gateway.chat("d")
            assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")
            assert await pid_of(gateway, "a") == pids["a"]
            rest = await stream.rest()
            assert rest[-1] == "data: [DONE]"
            assert len(rest) == 3
        await gateway.ask("a")
        assert await pid_of(gateway, "a") == pids["a"]
        await until(lambda: is_gone(gateway, "d"))
    (event,) = gateway.of_kind(ConfigReloaded)
    assert set(event.changed) == {"models.b.environment", "models.c", "models.d"}
    stopped = [event.model_name for event in gateway.of_kind(ServerStopped)]
    assert sorted(stopped[:2]) == ["b", "d"]


async def is_gone(gateway: RealGateway, model: str) -> bool:
    """Return whether a model is no longer in memory."""
    return await gateway.resident(model) is None


async def test_changed_model_ends_its_answer_before_it_is_started_anew(home: Home) -> None:
    """Nothing is cut; who comes meanwhile waits for the new server."""
    async with open_real_gateway(home) as gateway:
        async with streaming(gateway, "a", 1.5) as stream, anyio.create_task_group() as clients:
            old = await pid_of(gateway, "a")
            home.configure(with_key(config("a", "b"), "a", OTHERWISE))
            await reload(gateway)
            clients.start_soon(gateway.ask, "a")
            assert (await stream.rest())[-1] == "data: [DONE]"
        assert gateway.starts == ["a", "a"]
        assert await pid_of(gateway, "a") != old


async def test_removed_model_ends_its_answer(home: Home) -> None:
    """And then goes."""
    async with open_real_gateway(home) as gateway:
        async with streaming(gateway, "a", 1.5) as stream:
            home.configure(config("b"))
            assert (await reload(gateway))["changed"] == ["models.a"]
            assert (await gateway.chat("a")).status_code == 404
            assert (await stream.rest())[-1] == "data: [DONE]"
        await until(lambda: is_gone(gateway, "a"))
        home.configure(config("a", "b"))
        await reload(gateway)
        await gateway.ask("a")
        assert await gateway.resident("a") is not None


async def test_terms_of_a_model_change_without_a_restart(home: Home) -> None:
    """Pinned, idle time, priority, and how many requests it takes at once."""
    async with open_real_gateway(home) as gateway:
        await gateway.ask("a")
        pid = await pid_of(gateway, "a")
        lines = "pinned = true\npriority = 3\nconcurrency_limit = 1"
        home.configure(with_key(config("a", "b"), "a", lines))
        told = await reload(gateway)
        assert told["changed"] == [
            f"models.a.{key}" for key in ("concurrency_limit", "pinned", "priority")
        ]
        resident = await gateway.resident("a")
        assert resident is not None
        assert (resident["pid"], resident["pinned"]) == (pid, True)
        async with streaming(gateway, "a", 1.0) as stream, anyio.create_task_group() as clients:
            clients.start_soon(gateway.ask, "a")
            await until(lambda: somebody_waits(gateway))
            home.configure(with_key(config("a", "b"), "a", "ttl_s = 0.05"))
            await reload(gateway)
            await stream.rest()
        await until(lambda: is_gone(gateway, "a"))
        assert gateway.starts == ["a"]


async def test_sampling_changes_without_a_restart(home: Home, tmp_path: Path) -> None:
    """Of all models, and of one; the next request says it."""
    record = tmp_path / "requests"
    home.configure(config("a", record=str(record)))
    async with open_real_gateway(home) as gateway:
        await gateway.ask("a")
        pid = await pid_of(gateway, "a")
        text = config("a", record=str(record))
        home.configure(
            f"[inference]\ntop_k = 4\n{text}\n[models.a.inference]\nseed = 9\n"
            "[models.a.profiles.p]\nset = {top_p = 0.5}\n"
        )
        told = await reload(gateway)
        assert told["changed"] == ["inference.top_k", "models.a.inference", "models.a.profiles"]
        assert (await gateway.chat("a:p")).status_code == 200
        assert await pid_of(gateway, "a") == pid
    sent = json.loads(json.loads(record.read_text().splitlines()[-1])["body"])
    assert (sent["top_k"], sent["seed"], sent["top_p"]) == (4, 9, 0.5)


async def somebody_waits(gateway: RealGateway) -> bool:
    """Return whether the queue is not empty."""
    return bool((await gateway.client.get("/admin/queue")).json()["queue"])


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("[gateway\n", 1, "not TOML"),
        ("[gateway]\nqueue_limit = 3\n\nprot = 1\n", 4, "did you mean 'port'"),
        ("[models.a]\nport = 1\n", 1, "needs a path"),
        ("[routing]\nplanner = 'memory'\nbudgets = {mars = 1}\n", None, "no such device"),
        ("[gateway]\nqueue_limit = -1\n", 2, "queue_limit"),
    ],
)
async def test_broken_file_changes_nothing(
    home: Home, text: str, line: int | None, reason: str
) -> None:
    """The error names the line, for the caller and in the log; a stream goes on."""
    async with open_real_gateway(home) as gateway:
        async with streaming(gateway, "a", 1.0) as stream:
            home.configure(text)
            answer = await gateway.client.post("/admin/config/reload")
            assert answer.status_code == 400
            error = answer.json()["error"]
            assert error["code"] == "configuration_error"
            assert reason in error["message"]
            where = f"gglib.toml:{line}: " if line else "gglib.toml: "
            assert where in error["message"]
            assert (await stream.rest())[-1] == "data: [DONE]"
        await gateway.ask("b")
        (event,) = gateway.of_kind(ConfigReloadFailed)
        assert event.reason == error["message"]
        assert gateway.of_kind(ConfigReloaded) == []
        home.configure(config("a", "b"))
        assert (await reload(gateway)) == {"changed": [], "at_next_start": [], "doubts": []}


async def test_settings_file_that_is_gone_changes_nothing(home: Home) -> None:
    """Its models are not taken for removed."""
    async with open_real_gateway(home) as gateway:
        (home.path / "gglib.toml").unlink()
        answer = await gateway.client.post("/admin/config/reload")
        assert answer.status_code == 400
        assert "is gone" in answer.json()["error"]["message"]
        await gateway.ask("a")


async def test_what_is_bound_or_opened_is_told_to_wait_for_the_next_start(home: Home) -> None:
    """The reload takes up the rest, and tells it each time."""
    async with open_real_gateway(home) as gateway:
        host = "host = 'localhost'\nqueue_limit = 7"
        home.configure(
            config("a", "b", gateway=host, chunks=5) + "\n[runners.local]\nlog_keep = 3\n"
        )
        told = await reload(gateway)
        assert told == {
            "changed": ["gateway.queue_limit"],
            "at_next_start": ["gateway.host", "engines.stub", "runners.local"],
            "doubts": [],
        }
        again = await reload(gateway)
        assert again == {"changed": [], "at_next_start": told["at_next_start"], "doubts": []}


async def test_key_that_was_taken_back_opens_no_door_of_a_kept_connection(home: Home) -> None:
    """The connection, which was let in a moment ago, is asked anew."""
    home.configure(config("a", gateway="api_keys = ['old', 'new']"))
    async with open_real_gateway(home) as gateway:
        body = {"model": "a", "messages": []}
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(
            base_url=gateway.address, limits=limits, trust_env=False, timeout=20
        ) as client:

            async def chat(key: str) -> int:
                sent = {"authorization": f"Bearer {key}"}
                answer = await client.post("/v1/chat/completions", json=body, headers=sent)
                return answer.status_code

            assert [await chat("old"), await chat("old"), await chat("old")] == [200, 200, 200]
            (connection,) = client._transport._pool.connections  # type: ignore[attr-defined]
            home.configure(config("a", gateway="api_keys = ['new']"))
            assert (await reload(gateway))["changed"] == ["gateway.api_keys"]
            assert [await chat("old"), await chat("new"), await chat("old")] == [401, 200, 401]
            assert client._transport._pool.connections == [connection]  # type: ignore[attr-defined]


async def test_limits_hold_for_connections_that_are_there(home: Home) -> None:
    """A body that was welcome is too large on the same connection."""
    async with open_real_gateway(home) as gateway:
        await gateway.ask("a")
        home.configure(config("a", "b", gateway="max_body_bytes = 100"))
        await reload(gateway)
        answer = await gateway.chat("a", padding="x" * 100)
        assert answer.status_code == 413


async def test_gateway_that_strangers_reach_keeps_its_last_key(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the file names another host: it listens where it listens."""
    monkeypatch.setattr("gglib.gateway.serve.bind", bind_to_loopback)
    home.configure(config("a", gateway="host = '0.0.0.0'\napi_keys = ['k']"))
    async with open_real_gateway(home) as gateway:
        home.configure(config("a", gateway="host = '127.0.0.1'"))
        answer = await gateway.client.post("/admin/config/reload")
        assert answer.status_code == 400
        assert "no key is set" in answer.json()["error"]["message"]
        async with httpx.AsyncClient(base_url=gateway.address, trust_env=False) as stranger:
            assert (await stranger.get("/v1/models")).status_code == 401


def bind_to_loopback(_host: str, port: int, **more: Any) -> Any:
    """Bind where no stranger is, whatever the settings say."""
    from gglib.gateway.listener import bind

    return bind("127.0.0.1", port, **more)


@pytest.mark.parametrize("how", ["renamed", "in place"])
async def test_watched_file_is_taken_up_when_it_changes(home: Home, how: str) -> None:
    """Whether another takes its place, or it is written anew; a broken one is told once."""
    home.configure(config("a", gateway="watch_config = true"))
    async with open_real_gateway(home) as gateway:

        async def write(text: str) -> None:
            path = home.path / "gglib.toml"
            if how == "renamed":
                fresh = home.path / "fresh.toml"
                fresh.write_text(text)
                fresh.chmod(0o600)
                fresh.replace(path)
            else:
                path.write_text(text)

        async def has(kind: type[Any]) -> bool:
            return bool(gateway.of_kind(kind))

        await write("[gateway]\nwatch_config = maybe\n")
        await until(lambda: has(ConfigReloadFailed))
        await write(config("a", "c", gateway="watch_config = true"))
        await until(lambda: has(ConfigReloaded))
        await gateway.ask("c")
        assert [event.changed for event in gateway.of_kind(ConfigReloaded)] == [("models.c",)]
        assert len(gateway.of_kind(ConfigReloadFailed)) == 1
