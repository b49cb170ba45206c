"""uvicorn, with our connections, our signals and our end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
import ssl
from collections.abc import Callable, Iterator

import anyio
import uvicorn

from gglib.gateway.app import Parts, Reload, make_app
from gglib.gateway.event_feed import EventFeed
from gglib.gateway.metered_app import MeteredApp
from gglib.gateway.metrics import Metrics
from gglib.gateway.relay.connection import GatewayProtocol
from gglib.gateway.relay.limits import Limits
from gglib.gateway.relay.shared import RelayShared
from gglib.gateway.sight import Sight
from gglib.services.pool import Pool
from gglib.services.routing.state import Closing
from gglib.services.server_logs import ServerLogs
from gglib.services.serving import RunningServer
from gglib.settings import GatewaySettings

__all__ = ["GatewayServer"]

_log = logging.getLogger("gglib.gateway")


class _Uvicorn(uvicorn.Server):
    """uvicorn's server without its signal handlers: re-raised, they end a process unwound."""

    def __init__(
        self, config: uvicorn.Config, tls: ssl.SSLContext | None, limits: Callable[[], Limits]
    ) -> None:
        super().__init__(config)
        self._tls = tls
        self._limits = limits

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, as uvicorn does; with TLS, in our times."""
        if self._tls is None:
            await super().startup(sockets)
            return
        limits = self._limits()
        self.servers = [
            await asyncio.get_running_loop().create_server(
                self._connection,
                sock=listener,
                backlog=self.config.backlog,
                ssl=self._tls,
                ssl_handshake_timeout=limits.header_timeout_s,
                # It bounds the sending of what was written before the end, too.
                ssl_shutdown_timeout=limits.stall_timeout_s,
            )
            for listener in sockets or ()
        ]
        self.started = True

    def _connection(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the owner."""
        yield


class GatewayServer:
    """Accepts connections on one socket until it is stopped."""

    def __init__(
        self,
        shared: RelayShared,
        pool: Pool,
        feed: EventFeed,
        logs: ServerLogs,
        *,
        shutdown_timeout_s: float,
        reload: Reload,
        tls: ssl.SSLContext | None = None,
        sweep_interval_s: float = 0.5,
    ) -> None:
        self._stopping = anyio.Event()
        sight = Sight(
            metrics=Metrics(shared.meter, shared.router, pool),
            feed=feed,
            logs=logs,
            models=shared.models,
            ending=self._stopping.wait,
        )
        app = make_app(
            Parts(
                models=shared.models,
                router=shared.router,
                pool=pool,
                log_error=log_error,
                sight=sight,
                shared=shared,
                reload=reload,
            )
        )
        shared.meter.know_routes(route.path for route in app.routes)
        config = uvicorn.Config(
            MeteredApp(app, shared.meter),
            http=functools.partial(GatewayProtocol, shared=shared),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=_whole_seconds(shutdown_timeout_s),
        )
        self._shared = shared
        self._server = _Uvicorn(config, tls, lambda: shared.limits)
        self._sweep_interval_s = sweep_interval_s
        self._ended = anyio.Event()

    async def serve_on(self, listener: socket.socket) -> None:
        """Serve until ``stop``; then finish the answers in progress, up to the deadline."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._sweep)
            try:
                await self._server.serve(sockets=[listener])
            finally:
                for connection in list(self._server.server_state.connections):
                    connection.transport.abort()
                tasks.cancel_scope.cancel()
                self._ended.set()

    def change(self, settings: GatewaySettings) -> None:
        """Go by other settings from now on, every connection too."""
        self._server.config.timeout_graceful_shutdown = _whole_seconds(settings.shutdown_timeout_s)
        for connection in list(self._server.server_state.connections):
            if isinstance(connection, GatewayProtocol):
                connection.renew()

    def stop(self) -> None:
        """Begin a graceful end: nothing new is accepted."""
        self._server.should_exit = True
        self._stopping.set()

    def cut(self) -> None:
        """End now: what is being answered is broken off."""
        self.stop()
        self._server.force_exit = True

    def drop_server(self, server: RunningServer, why: Closing | None) -> None:
        """Have nothing more to do with an engine's server that is gone, or about to be ended.

        ``why``: it is ended in the midst of its answers, which are broken off.
        """
        self._shared.pools.drop(server)
        if why is not None:
            for connection in list(self._server.server_state.connections):
                if isinstance(connection, GatewayProtocol):
                    connection.server_cut(server, why)

    async def wait_ended(self) -> None:
        """Return when the last connection is closed."""
        await self._ended.wait()

    async def _sweep(self) -> None:
        """Have every connection check its time limits: one timer, not two for every request."""
        while True:
            await anyio.sleep(self._sweep_interval_s)
            for connection in list(self._server.server_state.connections):
                if isinstance(connection, GatewayProtocol):
                    now = connection.loop.time()
                    connection.check(now)
                    if self._server.should_exit:
                        connection.check_goodbye(now)


def _whole_seconds(seconds: float) -> int:
    """Return what uvicorn takes: whole seconds, and at least one."""
    return max(1, round(seconds))


def log_error(error: BaseException) -> None:
    """Log a bug with its trace; whoever met it has been answered."""
    _log.error("internal error", exc_info=error)
