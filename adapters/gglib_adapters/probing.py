"""One health check over HTTP, shared by every runner whose servers have a base URL."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from typing import TYPE_CHECKING

import anyio

from gglib.domain.health import ServerHealth
from gglib.domain.server_address import certificate_refusal
from gglib.errors import InvalidValue, ServerUntrusted
from gglib.ports.clock import Clock
from gglib_adapters.http_client import LazyHttpClient, Reach

if TYPE_CHECKING:
    import httpx

__all__ = ["HttpProbe"]

#: More of a health answer than this is not read.
_MAX_BODY_BYTES = 65_536
_MAX_CONNECTIONS = 16


class HttpProbe:
    """Asks ``GET base_url + path`` once per call, on a connection of its own.

    Call ``aclose`` at the end.
    """

    __slots__ = ("_client", "_clock", "_timeout_s")

    def __init__(self, *, clock: Clock, timeout_s: float) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        self._client = LazyHttpClient(timeout_s=timeout_s, max_connections=_MAX_CONNECTIONS)

    async def probe(
        self,
        base_url: str,
        *,
        path: str = "/health",
        statuses: Set[int] = frozenset({200}),
        headers: Mapping[str, str] | None = None,
        ca_file: str | None = None,
    ) -> ServerHealth:
        """Return what the server says of itself; every failure is an unhealthy state.

        ``base_url`` and ``ca_file`` are as in a ``ProcessHandle``.
        """
        try:
            reach = await self._client.reach(base_url, ca_file)
        except ServerUntrusted as error:
            return ServerHealth.unhealthy(str(error), is_untrusted=True)
        except InvalidValue as error:
            return ServerHealth.unhealthy(str(error))
        began = self._clock.monotonic()
        answer: ServerHealth | None = None
        with anyio.move_on_after(self._timeout_s):
            answer = await self._ask(reach, path, statuses, headers)
        if answer is None:
            return ServerHealth.unhealthy(f"no answer within {self._timeout_s:g} s")
        if answer.healthy:
            latency_s = self._clock.monotonic() - began
            return ServerHealth.ok(last_check=self._clock.now(), latency_s=latency_s)
        return answer

    async def aclose(self) -> None:
        """Close the HTTP clients that there are."""
        await self._client.aclose()

    async def _ask(
        self,
        reach: Reach,
        path: str,
        statuses: Set[int],
        headers: Mapping[str, str] | None,
    ) -> ServerHealth:
        import httpx

        url = reach.url + path
        try:
            async with reach.client.stream("GET", url, headers=headers) as response:
                body = b""
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > _MAX_BODY_BYTES:
                        break
        except httpx.ConnectError as error:
            return _not_reached(reach.url, error)
        except httpx.TimeoutException:
            return ServerHealth.unhealthy(f"no answer within {self._timeout_s:g} s")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return ServerHealth.unhealthy(f"no HTTP answer: {str(error) or type(error).__name__}")
        if response.status_code in statuses:
            return ServerHealth.ok(last_check=self._clock.now())
        said = _error_message(body)
        return ServerHealth.unhealthy(said or f"answered {response.status_code} to GET {url}")


def _not_reached(url: str, error: httpx.ConnectError) -> ServerHealth:
    refusal = certificate_refusal(error)
    if refusal is not None:
        return ServerHealth.unhealthy(str(ServerUntrusted(url, refusal)), is_untrusted=True)
    if url.startswith("https:"):
        said = f": {error}" if str(error) else ""
        return ServerHealth.unhealthy(f"not listening yet, or not with TLS{said}")
    return ServerHealth.unhealthy("not listening yet")


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
