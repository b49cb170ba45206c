"""Everything that answers on one socket, put together."""

from __future__ import annotations

import functools
import logging
import socket
import ssl

import anyio
import uvicorn

from gglib.gateway.app import Parts, Reload, make_app
from gglib.gateway.event_feed import EventFeed
from gglib.gateway.listening import Listening
from gglib.gateway.metered_app import MeteredApp
from gglib.gateway.metrics import Metrics
from gglib.gateway.pulls import Pulling
from gglib.gateway.relay.connection import GatewayProtocol
from gglib.gateway.relay.shared import RelayShared
from gglib.gateway.sight import Sight
from gglib.services.pool import Pool
from gglib.services.pulling.service import PullService
from gglib.services.routing.state import Closing
from gglib.services.server_logs import ServerLogs
from gglib.services.serving import RunningServer
from gglib.settings import GatewaySettings

__all__ = ["GatewayServer"]

_log = logging.getLogger("gglib.gateway")


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
        pulls: PullService,
        tls: ssl.SSLContext | None = None,
        sweep_interval_s: float = 0.5,
    ) -> None:
        sight = Sight(
            metrics=Metrics(shared.meter, shared.router, pool),
            feed=feed,
            logs=logs,
            models=shared.models,
            ending=self._wait_stopping,
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
                pulling=Pulling(pulls=pulls, ending=self._wait_stopping),
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
        )
        self._shared = shared
        self._listening = Listening(
            config,
            tls=tls,
            limits=lambda: shared.limits,
            shutdown_timeout_s=shutdown_timeout_s,
        )
        self._sweep_interval_s = sweep_interval_s
        self._ended = anyio.Event()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._listening.connections)

    @property
    def own_answers(self) -> int:
        """How many answers are being made that are not an engine's."""
        return self._listening.tasks

    async def serve_on(self, listener: socket.socket) -> None:
        """Serve until ``stop``; then finish the answers in progress, up to the deadline."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._sweep)
            try:
                await self._listening.serve(listener)
            finally:
                tasks.cancel_scope.cancel()
                self._ended.set()

    def change(self, settings: GatewaySettings) -> None:
        """Go by other settings from now on, every connection too."""
        self._listening.shutdown_timeout_s = settings.shutdown_timeout_s
        for connection in self._listening.connections:
            connection.renew()

    def stop(self) -> None:
        """Begin a graceful end: nothing new is accepted."""
        self._listening.stop()

    def cut(self) -> None:
        """End now: what is being answered is broken off."""
        self._listening.cut()

    def drop_server(self, server: RunningServer, why: Closing | None) -> None:
        """Have nothing more to do with an engine's server that is gone, or about to be ended.

        ``why``: it is ended in the midst of its answers, which are broken off.
        """
        self._shared.pools.drop(server)
        if why is not None:
            for connection in self._listening.connections:
                connection.server_cut(server, why)

    async def wait_ended(self) -> None:
        """Return when the last connection is closed."""
        await self._ended.wait()

    async def _wait_stopping(self) -> None:
        await self._listening.wait_stopping()

    async def _sweep(self) -> None:
        """Have every connection check its time limits: one timer, not two for every request."""
        while True:
            await anyio.sleep(self._sweep_interval_s)
            for connection in self._listening.connections:
                now = connection.loop.time()
                connection.check(now)
                if self._listening.is_stopping:
                    connection.check_goodbye(now)


def log_error(error: BaseException) -> None:
    """Log a bug with its trace; whoever met it has been answered."""
    _log.error("internal error", exc_info=error)
