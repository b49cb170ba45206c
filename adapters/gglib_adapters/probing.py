"""One health check over HTTP, shared by every runner whose servers have a base URL."""

from __future__ import annotations

import importlib
import json
import ssl
from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from gglib.domain.health import ServerHealth
from gglib.ports.clock import Clock

if TYPE_CHECKING:
    import httpx

__all__ = ["HttpProbe"]

#: More of a health answer than this is not read.
_MAX_BODY_BYTES = 65_536
_MAX_CONNECTIONS = 16


class HttpProbe:
    """Asks ``GET base_url + path`` once per call. One HTTP client, made at the first call.

    Connections are not kept: an idle one would hold a worker of the server, and would
    outlive the server here. Call ``aclose`` at the end.
    """

    __slots__ = ("_client", "_clock", "_timeout_s")

    def __init__(self, *, clock: Clock, timeout_s: float) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        self._client: httpx.AsyncClient | None = None

    async def probe(
        self,
        base_url: str,
        *,
        path: str = "/health",
        statuses: Set[int] = frozenset({200}),
        headers: Mapping[str, str] | None = None,
    ) -> ServerHealth:
        """Return what the server says of itself; every failure is an unhealthy state."""
        client = await self._opened()
        began = self._clock.monotonic()
        answer: ServerHealth | None = None
        with anyio.move_on_after(self._timeout_s):
            answer = await self._ask(client, base_url.rstrip("/") + path, statuses, headers)
        if answer is None:
            return ServerHealth.unhealthy(f"no answer within {self._timeout_s:g} s")
        if answer.healthy:
            latency_s = self._clock.monotonic() - began
            return ServerHealth.ok(last_check=self._clock.now(), latency_s=latency_s)
        return answer

    async def aclose(self) -> None:
        """Close the HTTP client, if there is one."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            # 0.1 s of imports: not on the event loop, and not before a server is asked.
            library: Any = await anyio.to_thread.run_sync(importlib.import_module, "httpx")
            if self._client is None:
                limits = library.Limits(
                    max_connections=_MAX_CONNECTIONS, max_keepalive_connections=0
                )
                self._client = library.AsyncClient(
                    timeout=self._timeout_s,
                    limits=limits,
                    # Runners reach servers over plain HTTP: reading the certificate store,
                    # 0.1 s, is saved, and https fails closed.
                    verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
                    headers={"connection": "close"},
                    # A proxy or a netrc of the user's must not come between.
                    trust_env=False,
                )
        client = self._client
        assert client is not None
        return client

    async def _ask(
        self,
        client: httpx.AsyncClient,
        url: str,
        statuses: Set[int],
        headers: Mapping[str, str] | None,
    ) -> ServerHealth:
        import httpx

        try:
            async with client.stream("GET", url, headers=headers) as response:
                body = b""
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > _MAX_BODY_BYTES:
                        break
        except httpx.ConnectError:
            return ServerHealth.unhealthy("not listening yet")
        except httpx.TimeoutException:
            return ServerHealth.unhealthy(f"no answer within {self._timeout_s:g} s")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return ServerHealth.unhealthy(f"no HTTP answer: {str(error) or type(error).__name__}")
        if response.status_code in statuses:
            return ServerHealth.ok(last_check=self._clock.now())
        said = _error_message(body)
        return ServerHealth.unhealthy(said or f"answered {response.status_code} to GET {url}")


def _error_message(body: bytes) -> str | None:
    """Return ``error.message`` of an OpenAI-shaped error.

    Source: llama-server answers 503 ``{"error": {"message": "Loading model", ...}}`` while it
    loads (build 11434).
    """
    try:
        document = json.loads(body)
    except ValueError:
        return None
    error = document.get("error") if isinstance(document, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) and message else None
