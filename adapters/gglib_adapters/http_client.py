"""The HTTP client that adapters ask servers with, made when it is first needed."""

from __future__ import annotations

import importlib
import ssl
from typing import TYPE_CHECKING, Any

import anyio.to_thread

if TYPE_CHECKING:
    import httpx

__all__ = ["LazyHttpClient"]


class LazyHttpClient:
    """Makes one client, at the first ``opened``. Call ``aclose`` at the end.

    Connections are not kept: an idle one would hold a worker of the server, and would outlive
    the server here. Redirects are not followed. ``max_connections``: ``None`` = any number.
    """

    __slots__ = ("_client", "_max_connections", "_timeout_s")

    def __init__(self, *, timeout_s: float, max_connections: int | None = None) -> None:
        self._timeout_s = timeout_s
        self._max_connections = max_connections
        self._client: httpx.AsyncClient | None = None

    async def opened(self) -> httpx.AsyncClient:
        """Return the client."""
        if self._client is None:
            # 0.1 s of imports: not on the event loop, and not before a server is asked.
            library: Any = await anyio.to_thread.run_sync(importlib.import_module, "httpx")
            if self._client is None:
                limits = library.Limits(
                    max_connections=self._max_connections, max_keepalive_connections=0
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

    async def aclose(self) -> None:
        """Close the client, if there is one."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()
