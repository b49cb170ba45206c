"""Named keys: what they open, from the settings to the socket."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.commands import Home, stub_config
from support.gateway import SocketGateway, open_socket_gateway
from support.real_gateway import RealGateway, open_real_gateway

from gglib.domain.access import Grant, Scope
from gglib.settings.keys import digest_of

pytestmark = pytest.mark.anyio

USER = "sk-user-of-m"
LIMITED = {digest_of(USER): Grant(frozenset({Scope.INFERENCE}), models=("m",))}
AUTHORIZED = f"Authorization: Bearer {USER}\r\n"
ROOMY = '[routing]\nplanner = "count"\n'


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The gateway's own loop."""
    return "asyncio", {"use_uvloop": True}


def limit(gateway: SocketGateway) -> None:
    """Have the gateway know one key, for the model m."""
    gateway.shared.doors.change(api_keys=(), keys=LIMITED, own_names=(), allowed_origins=())


@pytest.mark.parametrize("name", ["n", "n-alias", "n:cold", "nobody", "m-", "*"])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/chat/completions", '{"model":"NAME"}'),
        ("POST", "/api/chat", '{"model":"NAME","messages":[{"role":"user","content":"?"}]}'),
        ("POST", "/api/generate", '{"model":"NAME","keep_alive":0}'),
        ("POST", "/api/show", '{"model":"NAME"}'),
        ("GET", "/v1/models/NAME", ""),
        ("GET", "/upstream/NAME/health", ""),
    ],
)
async def test_model_of_others_is_refused_before_it_is_loaded(
    method: str, path: str, body: str, name: str
) -> None:
    """By whatever name, and whether there is one or not; the answer names it."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        limit(gateway)
        raw = body.replace("NAME", name)
        await client.send(
            f"{method} {path.replace('NAME', name)} HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Length: {len(raw)}\r\n{AUTHORIZED}\r\n{raw}"
        )
        answer = await client.read()
        assert (answer.status, gateway.serving.starts) == (403, [])
    error = json.loads(answer.body)["error"]
    message = error if isinstance(error, str) else error["message"]
    shown = name if "upstream" not in path or name == "n" else name.partition("/")[0]
    assert f"may not use the model '{shown}'" in message and "only 'm'" in message


async def test_model_of_its_own_is_served_and_listed_alone() -> None:
    """By its alias and profile, too; in OpenAI's list and Ollama's."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        limit(gateway)
        for name in ("m", "m-alias", "m:cold"):
            await client.post(f'{{"model":"{name}"}}', extra=AUTHORIZED)
            assert (await client.read()).status == 200
        for path, key in (("/v1/models", "data"), ("/api/tags", "models"), ("/api/ps", "models")):
            await client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{AUTHORIZED}\r\n")
            listed = json.loads((await client.read()).body)[key]
            assert [each.get("id") or each["name"] for each in listed] == ["m"]


@pytest.mark.parametrize("between", ["/health", "/v1/models", "/running", "/nowhere"])
async def test_limit_is_not_forgotten_on_a_connection(between: str) -> None:
    """Whatever else is asked with the same headers between two requests."""
    async with open_socket_gateway() as gateway, gateway.connect() as client:
        limit(gateway)
        await client.post('{"model":"m"}', extra=AUTHORIZED)
        assert (await client.read()).status == 200
        await client.post('{"model":"m"}', path=between, extra=AUTHORIZED)
        await client.read()
        await client.post('{"model":"n"}', extra=AUTHORIZED)
        assert (await client.read()).status == 403
        await client.post('{"model":"m"}', extra=AUTHORIZED)
        assert (await client.read()).status == 200
        assert gateway.serving.starts == ["m"]


KEYS = f"""
[gateway.keys.user]
key = "sk-user"
models = ["a"]

[gateway.keys.watcher]
sha256 = "{hashlib.sha256(b"sk-watcher").hexdigest().upper()}"
scopes = ["read"]

[gateway.keys.boss]
key = "sk-boss"
scopes = ["admin"]
"""


async def statuses(gateway: RealGateway, key: str | None) -> list[int]:
    """Return what a key gets of: a chat with a, one with b, metrics, the queue, logs, an unload."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(
        base_url=gateway.address, headers=headers, trust_env=False, timeout=20
    ) as client:

        async def chat(model: str) -> int:
            body: dict[str, Any] = {"model": model, "messages": []}
            return (await client.post("/v1/chat/completions", json=body)).status_code

        found = [await chat("a"), await chat("b")]
        for path in ("/metrics", "/admin/queue", "/admin/logs/a"):
            found.append((await client.get(path)).status_code)
        return [*found, (await client.post("/admin/models/b/unload")).status_code]


async def test_keys_of_the_settings_open_what_they_say_and_change_with_them(
    tmp_path: Path,
) -> None:
    """A reload takes back and gives at once; streams and servers stay."""
    home = Home.make(tmp_path)
    home.configure(stub_config("a", "b", extra=ROOMY + KEYS), "a", "b")
    async with open_real_gateway(home) as gateway:
        assert await statuses(gateway, None) == [401] * 6
        assert await statuses(gateway, "sk-user") == [200, 403, 403, 403, 403, 403]
        assert await statuses(gateway, "sk-watcher") == [403, 403, 200, 200, 403, 403]
        assert await statuses(gateway, "sk-boss") == [200] * 6
        home.configure(stub_config("a", "b", extra=ROOMY + KEYS.replace("sk-user", "sk-new")))
        told = (await gateway.client.post("/admin/config/reload")).json()
        assert told == {"changed": ["gateway.keys"], "at_next_start": [], "doubts": []}
        assert await statuses(gateway, "sk-user") == [401] * 6
        assert (await statuses(gateway, "sk-new"))[:2] == [200, 403]
        assert gateway.starts == ["a", "b"]


async def test_no_key_is_shown(tmp_path: Path) -> None:
    """Neither itself nor its hash; what it opens is."""
    home = Home.make(tmp_path)
    home.configure(KEYS)
    shown = {each["key"]: each["value"] for each in home.json("config", "show")}
    assert shown["gateway.keys"]["user"] == {
        "key": "(not shown)",
        "scopes": ["inference"],
        "models": ["a"],
    }
    text = home.run("config", "show").stdout + json.dumps(shown)
    assert "sk-user" not in text
    assert hashlib.sha256(b"sk-watcher").hexdigest() not in text.lower()
