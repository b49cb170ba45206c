"""Accepting connections on one socket, until it is told to end. Nothing ticks meanwhile."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import uvicorn
from uvicorn.server import ServerState

from gglib.gateway.relay.connection import GatewayProtocol
from gglib.gateway.relay.limits import Limits

__all__ = ["Listening"]

T = TypeVar("T")


class Listening:
    """Serves uvicorn's kind of application, with its own connections.

    It takes uvicorn's place, which looks ten times a second whether it is to end: it would end
    a fifth of a second late, and an idle gateway would never rest.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        tls: ssl.SSLContext | None,
        limits: Callable[[], Limits],
        shutdown_timeout_s: float,
    ) -> None:
        self.shutdown_timeout_s = shutdown_timeout_s
        """How long what is being answered may take once it is to end."""
        self._config = config
        self._tls = tls
        self._limits = limits
        self._stopping = anyio.Event()
        self._is_cut = False
        self._left = asyncio.Event()
        self._state = ServerState()
        self._state.connections = _Watched(self._left)
        self._state.tasks = _Watched(self._left)

    @property
    def connections(self) -> list[GatewayProtocol]:
        """The connections that are open."""
        return list(self._state.connections)  # type: ignore[arg-type]

    @property
    def tasks(self) -> int:
        """How many requests the application is at work on."""
        return len(self._state.tasks)

    @property
    def is_stopping(self) -> bool:
        """Whether it has been told to end."""
        return self._stopping.is_set()

    async def wait_stopping(self) -> None:
        """Return when it has been told to end."""
        await self._stopping.wait()

    def stop(self) -> None:
        """End: accept nothing new, finish what is being answered."""
        self._stopping.set()

    def cut(self) -> None:
        """End now, whatever is being answered."""
        self._is_cut = True
        self._left.set()
        self.stop()

    async def serve(self, listener: socket.socket) -> None:
        """Accept connections until it is told to end, and return when their answers are done."""
        if not self._config.loaded:
            self._config.load()
        try:
            server = await asyncio.get_running_loop().create_server(
                self._connection, sock=listener, backlog=self._config.backlog, **self._tls_terms()
            )
            try:
                await self._stopping.wait()
            finally:
                server.close()
            for connection in self.connections:
                connection.shutdown()
            with anyio.move_on_after(self.shutdown_timeout_s) as deadline:
                await self._wait_done()
            if deadline.cancelled_caught:
                for task in list(self._state.tasks):
                    task.cancel()
        finally:
            for connection in self.connections:
                connection.transport.abort()

    async def _wait_done(self) -> None:
        state = self._state
        while (state.connections or state.tasks) and not self._is_cut:
            self._left.clear()
            await self._left.wait()

    def _connection(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self._config.http_protocol_class(  # type: ignore[call-arg]
            config=self._config, server_state=self._state, app_state={}
        )
        return made

    def _tls_terms(self) -> dict[str, Any]:
        if self._tls is None:
            return {}
        limits = self._limits()
        return {
            "ssl": self._tls,
            "ssl_handshake_timeout": limits.header_timeout_s,
            # It bounds the sending of what was written before the end, too.
            "ssl_shutdown_timeout": limits.stall_timeout_s,
        }


class _Watched(set[T]):
    """A set that tells when something leaves it."""

    def __init__(self, left: asyncio.Event) -> None:
        super().__init__()
        self._left = left

    def discard(self, element: object) -> None:
        super().discard(element)
        self._left.set()
