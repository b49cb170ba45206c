"""The HTTP clients that adapters ask servers with, made when they are first needed."""

from __future__ import annotations

import importlib
import os
import ssl
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio.to_thread
import attrs

from gglib.domain.server_address import ServerAddress
from gglib.errors import ServerUntrusted

if TYPE_CHECKING:
    import httpx

__all__ = ["LazyHttpClient", "Reach"]

#: Clients of sockets and authorities that are kept: nothing is open in one that is not asked.
_CLIENTS_KEPT = 64

#: What a client is made for: a socket's path, or a file of authorities and its state.
_Way: TypeAlias = tuple[str | None, str | None, tuple[int, ...] | None]


@attrs.frozen
class Reach:
    """A client that reaches a server, and what it is to be asked for."""

    client: httpx.AsyncClient
    url: str
    """The server's base, without a slash at its end."""


class LazyHttpClient:
    """Makes a client for each way to a server, when it is first gone. Call ``aclose`` at the end.

    Connections are not kept: an idle one would hold a worker of the server, and would outlive
    the server here. Redirects are not followed. ``max_connections``: of one client; ``None`` =
    any number.
    """

    __slots__ = ("_clients", "_max_connections", "_timeout_s")

    def __init__(self, *, timeout_s: float, max_connections: int | None = None) -> None:
        self._timeout_s = timeout_s
        self._max_connections = max_connections
        self._clients: dict[_Way, httpx.AsyncClient] = {}

    async def reach(self, base_url: str, ca_file: str | None = None) -> Reach:
        """Return what reaches the server at ``base_url``; see ``ProcessHandle`` for both.

        Raises:
            InvalidValue: ``base_url`` is none.
            ServerUntrusted: ``ca_file`` cannot be read.
        """
        address = ServerAddress.parse(base_url)
        way: _Way = (address.socket_path, None, None)
        if address.is_tls:
            way = (None, ca_file or "", None if ca_file is None else _state(ca_file))
        client = self._clients.get(way)
        if client is None:
            # 0.1 s of imports, and as much for the system's authorities: not on the event loop,
            # and not before a server is asked.
            library: Any = await anyio.to_thread.run_sync(importlib.import_module, "httpx")
            trust = await self._trust(address, ca_file)
            client = self._clients.get(way) or self._made(library, way, trust)
        return Reach(client, address.http_url)

    async def aclose(self) -> None:
        """Close the clients that there are."""
        while self._clients:
            await self._clients.popitem()[1].aclose()

    async def _trust(self, address: ServerAddress, ca_file: str | None) -> ssl.SSLContext:
        if not address.is_tls:
            # Nothing is read for a plain server, and https would fail closed.
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            return await anyio.to_thread.run_sync(_trusting, ca_file)
        except OSError as error:
            reason = f"its ca_file {ca_file} cannot be read: {error.strerror or error}"
            raise ServerUntrusted(str(address), reason) from None

    def _made(self, library: Any, way: _Way, trust: ssl.SSLContext) -> httpx.AsyncClient:
        while len(self._clients) >= _CLIENTS_KEPT:
            del self._clients[next(iter(self._clients))]
        limits = library.Limits(max_connections=self._max_connections, max_keepalive_connections=0)
        transport = library.AsyncHTTPTransport(
            uds=way[0], verify=trust, limits=limits, trust_env=False
        )
        client: httpx.AsyncClient = library.AsyncClient(
            transport=transport,
            timeout=self._timeout_s,
            headers={"connection": "close"},
            # A proxy or a netrc of the user's must not come between.
            trust_env=False,
        )
        self._clients[way] = client
        return client


def _state(ca_file: str) -> tuple[int, ...] | None:
    """Return what differs when a file has changed."""
    try:
        found = os.stat(ca_file)  # noqa: PTH116 - called before every question
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _trusting(ca_file: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file)
