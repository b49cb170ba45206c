"""The gateway in this process, with all that is behind it: real servers of the stub engine."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import httpx

from gglib.domain.events import Event, ServerReady, ServerStarted
from gglib.gateway.serve import open_gateway
from gglib.settings import Settings, load_settings
from gglib.testing.contexts import RecordingSink
from support.commands import Home

__all__ = ["RealGateway", "open_real_gateway", "until"]

#: Far beyond what is ever needed; a test that gets there has failed.
DEADLINE_S = 20.0


@dataclass
class RealGateway:
    """The gateway under test, and a client of it that may administer it."""

    address: str
    client: httpx.AsyncClient
    sink: RecordingSink

    async def chat(self, model: str, **more: Any) -> httpx.Response:
        """Ask for one chat completion."""
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}
        return await self.client.post("/v1/chat/completions", json=body)

    async def ask(self, model: str, **more: Any) -> float:
        """Have a whole answer of that very model, and return how many seconds it took."""
        began = time.monotonic()
        answer = await self.chat(model, **more)
        took_s = time.monotonic() - began
        assert answer.status_code == 200, answer.text
        if more.get("stream"):
            assert answer.text.count(f'"model": "{model}"') == 3
            assert answer.text.endswith('"finish_reason": "stop"}]}\n\ndata: [DONE]\n\n')
        else:
            assert answer.json()["choices"][0]["message"]["content"] == f"I am {model}"
        return took_s

    async def admin(self, model: str, verb: str) -> httpx.Response:
        """Have something done with a model."""
        return await self.client.post(f"/admin/models/{model}/{verb}")

    async def resident(self, model: str) -> dict[str, Any] | None:
        """Return what ``/running`` tells of a model."""
        running = (await self.client.get("/running")).json()["running"]
        return next((each for each in running if each["model"] == model), None)

    async def residents(self) -> set[str]:
        """Return the names of the models in memory."""
        return {each["model"] for each in (await self.client.get("/running")).json()["running"]}

    def of_kind(self, kind: type[Event]) -> list[Any]:
        """Return the events of one kind, in order."""
        return [event for event in self.sink.events if type(event) is kind]

    @property
    def starts(self) -> list[str]:
        """The models whose servers were started, in order."""
        return [event.model_name for event in self.of_kind(ServerStarted)]

    def loads_s(self, model: str) -> list[float]:
        """Return how long each load of a model took."""
        return [event.load_s for event in self.of_kind(ServerReady) if event.model_name == model]


@asynccontextmanager
async def open_real_gateway(
    home: Home, *, trust: ssl.SSLContext | None = None
) -> AsyncIterator[RealGateway]:
    """Serve what ``home`` configures, on a free port, for the block.

    ``trust``: of the client, where it speaks TLS.
    """

    def read() -> Settings:
        return load_settings(flags={"gateway.port": 0}, environ=home.environment).settings

    sink = RecordingSink()
    async with open_gateway(read(), events=sink, reread=read) as gateway:
        async with httpx.AsyncClient(
            base_url=gateway.address,
            headers={"authorization": f"Bearer {gateway.admin_token}"},
            limits=httpx.Limits(max_connections=None),
            timeout=DEADLINE_S,
            verify=trust or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            trust_env=False,
        ) as client:
            yield RealGateway(gateway.address, client, sink)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Return when ``holds`` does, asking until it does."""
    with anyio.fail_after(DEADLINE_S):
        while not await holds():
            await anyio.sleep(0.01)
