"""Clients of servers that break one promise each: test_broken_server_clients.py runs this file.

No test module by its name, so that nothing else does.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import anyio
import httpx
import pytest

from gglib.domain.server_address import ServerAddress
from gglib.ports.context import AdapterContext
from gglib.ports.server_client import ServerClient, ServerProps
from gglib.testing import ServerClientContract
from gglib.testing.contracts.backends import Backend
from gglib.testing.contracts.server_client import OpenServerClient

#: To read the certificate store for each question would take longer than all the rest.
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class SoundServerClient(ServerClient):
    """Asks with a client of httpx's for each question."""

    timeout_s = 0.3
    most_bytes = 2**20
    settings: ClassVar[dict[str, Any]] = {"trust_env": False, "verify": NO_CERTIFICATES}

    async def props(
        self, base_url: str, api_key: str | None, *, ca_file: str | None = None
    ) -> ServerProps:
        headers = {"accept-encoding": "identity"}
        if api_key is not None:
            headers["authorization"] = f"Bearer {api_key}"
        with anyio.move_on_after(self.timeout_s) as scope:
            address = ServerAddress.parse(base_url)
            settings = {**self.settings, **self.way(address)}
            async with httpx.AsyncClient(timeout=2.0, headers=headers, **settings) as client:
                try:
                    return self.read(await self.body(client, address.http_url, scope))
                except (httpx.HTTPError, ValueError, RecursionError):
                    return ServerProps()
        return ServerProps()

    def way(self, address: ServerAddress) -> dict[str, Any]:
        if address.socket_path is None:
            return {}
        path = address.socket_path
        return {"transport": httpx.AsyncHTTPTransport(uds=path, verify=NO_CERTIFICATES)}

    async def body(
        self, client: httpx.AsyncClient, base_url: str, scope: anyio.CancelScope
    ) -> bytes:
        body = bytearray()
        async with client.stream("GET", f"{base_url}/props") as response:
            if self.refuses(response):
                return bytes(body)
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > self.most_bytes:
                    scope.cancel()
        return bytes(body)

    def refuses(self, response: httpx.Response) -> bool:
        return response.status_code != 200

    def read(self, body: bytes) -> ServerProps:
        document = json.loads(body)
        if not isinstance(document, dict):
            return ServerProps()
        settings = document.get("default_generation_settings")
        context = settings.get("n_ctx") if isinstance(settings, dict) else None
        return self.made(document.get("total_slots"), context)

    def made(self, slots: object, context: object) -> ServerProps:
        return ServerProps(
            slots_total=slots if type(slots) is int and slots > 0 else None,
            context_size=context if type(context) is int and context > 0 else None,
        )


class KnowsPortsOnly(SoundServerClient):
    """A socket's path says nothing to it."""

    def way(self, address: ServerAddress) -> dict[str, Any]:
        return {}


class FollowsRedirects(SoundServerClient):
    """Goes where it is sent, and takes the key along."""

    settings: ClassVar[dict[str, Any]] = {
        "trust_env": False,
        "verify": NO_CERTIFICATES,
        "follow_redirects": True,
    }


class AsksTheProxy(SoundServerClient):
    """Does as the user's environment says."""

    settings: ClassVar[dict[str, Any]] = {"trust_env": True, "verify": NO_CERTIFICATES}


class TimesEachRead(SoundServerClient):
    """A byte now and then is enough to go on."""

    timeout_s = 60.0


class ReadsToTheEnd(SoundServerClient):
    """However far that is."""

    timeout_s = 0.8
    most_bytes = 2**40


class TakesRefusals(SoundServerClient):
    """An answer is an answer."""

    def refuses(self, response: httpx.Response) -> bool:
        return False


class TakesTheirWord(SoundServerClient):
    """What a server says is what it has."""

    def made(self, slots: object, context: object) -> ServerProps:
        return ServerProps(slots_total=slots, context_size=context)  # type: ignore[arg-type]


class AllOrNothing(SoundServerClient):
    """What is not whole counts for nothing."""

    def made(self, slots: object, context: object) -> ServerProps:
        found = super().made(slots, context)
        return found if found.slots_total and found.context_size else ServerProps()


class OneAfterTheOther(SoundServerClient):
    """A question waits for the one before it."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()

    async def props(
        self, base_url: str, api_key: str | None, *, ca_file: str | None = None
    ) -> ServerProps:
        async with self.lock:
            return await super().props(base_url, api_key, ca_file=ca_file)


class ServerClientKit(ServerClientContract):
    """The contract on ``kind``."""

    __test__ = False
    backends: Sequence[Backend] = ("asyncio",)
    kind: ClassVar[type[SoundServerClient]]

    def __init_subclass__(cls) -> None:
        cls.__test__ = True

    @pytest.fixture
    def open_client(self) -> OpenServerClient:
        @asynccontextmanager
        async def opened(context: AdapterContext) -> AsyncIterator[ServerClient]:
            yield self.kind()

        return opened


class TestSoundServerClient(ServerClientKit):
    kind = SoundServerClient


class TestKnowsPortsOnly(ServerClientKit):
    kind = KnowsPortsOnly


class TestFollowsRedirects(ServerClientKit):
    kind = FollowsRedirects


class TestAsksTheProxy(ServerClientKit):
    kind = AsksTheProxy


class TestTimesEachRead(ServerClientKit):
    kind = TimesEachRead


class TestReadsToTheEnd(ServerClientKit):
    kind = ReadsToTheEnd


class TestTakesRefusals(ServerClientKit):
    kind = TakesRefusals


class TestTakesTheirWord(ServerClientKit):
    kind = TakesTheirWord


class TestAllOrNothing(ServerClientKit):
    kind = AllOrNothing


class TestOneAfterTheOther(ServerClientKit):
    kind = OneAfterTheOther
