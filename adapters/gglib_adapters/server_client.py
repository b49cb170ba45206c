"""Asking running servers over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager

import anyio

from gglib.errors import InvalidValue, ServerUntrusted
from gglib.ports.context import AdapterContext
from gglib.ports.server_client import ServerClient, ServerProps
from gglib_adapters.http_client import LazyHttpClient

__all__ = ["HttpServerClient", "open_http_server_client"]

_TIMEOUT_S = 2.0
#: A chat template is in it, of 100 kB at the most so far.
_MAX_BODY_BYTES = 1_048_576


class HttpServerClient(ServerClient):
    """Asks each server on a connection of its own. Call ``aclose`` at the end."""

    __slots__ = ("_client", "_timeout_s")

    def __init__(self, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._client = LazyHttpClient(timeout_s=timeout_s)

    async def props(
        self, base_url: str, api_key: str | None, *, ca_file: str | None = None
    ) -> ServerProps:
        """See ``ServerClient``."""
        # Compressed, a small answer could be a large one.
        headers = {b"accept-encoding": b"identity"}
        if api_key is not None:
            # As it came by the environment, whatever its bytes.
            headers[b"authorization"] = b"Bearer " + api_key.encode(errors="surrogateescape")
        body: bytes | None = None
        # The client's own timeouts begin anew with every byte.
        with anyio.move_on_after(self._timeout_s) as scope:
            body = await self._body(base_url, ca_file, headers, scope)
        return ServerProps() if body is None else _props(body)

    async def aclose(self) -> None:
        """Close the HTTP clients that there are."""
        await self._client.aclose()

    async def _body(
        self,
        base_url: str,
        ca_file: str | None,
        headers: Mapping[bytes, bytes],
        scope: anyio.CancelScope,
    ) -> bytes | None:
        """Return the body of a good answer; ``None``: there was none.

        One that is too long cancels ``scope``, in which this runs.
        """
        try:
            reach = await self._client.reach(base_url, ca_file)
        except (InvalidValue, ServerUntrusted):
            return None
        import httpx

        body, url = b"", reach.url + "/props"
        try:
            async with reach.client.stream("GET", url, headers=headers) as response:
                if response.status_code != httpx.codes.OK:
                    return None
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > _MAX_BODY_BYTES:
                        # A loop that is left would leave httpx's own generators half-way, which
                        # trio minds: the next read ends them.
                        scope.cancel()
        except (httpx.HTTPError, httpx.InvalidURL):
            return None
        return body


def _props(body: bytes) -> ServerProps:
    """Return what llama-server's document says.

    Source: GET /props of llama-server, build 11434: ``total_slots``, and the context of one
    slot as ``default_generation_settings.n_ctx``.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ServerProps()
    if not isinstance(document, dict):
        return ServerProps()
    settings = document.get("default_generation_settings")
    return ServerProps(
        slots_total=_count(document.get("total_slots")),
        context_size=_count(settings.get("n_ctx")) if isinstance(settings, dict) else None,
    )


def _count(value: object) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        return None
    return value


@asynccontextmanager
async def open_http_server_client(context: AdapterContext) -> AsyncIterator[HttpServerClient]:
    """Open a client of servers; it has no settings."""
    del context
    async with aclosing(HttpServerClient()) as client:
        yield client
