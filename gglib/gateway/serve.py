"""The gateway, from settings to its last answer."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

import anyio
import attrs

from gglib import __version__
from gglib.bootstrap import Composition, compose
from gglib.domain.events import GatewayStarted, GatewayStopped
from gglib.domain.ownership import Asker, OwnerKind
from gglib.errors import NotConfigured
from gglib.gateway.adoption import Adoption
from gglib.gateway.certificate import Certificate, ServerTls, read_certificate
from gglib.gateway.doors import Doors
from gglib.gateway.event_feed import EventFeed
from gglib.gateway.listener import bind, url_of
from gglib.gateway.meter import Loads, Meter
from gglib.gateway.metrics import Metrics
from gglib.gateway.presence import PresenceKeeper, hold_presence
from gglib.gateway.pulls import keep_pulling
from gglib.gateway.relay.body_rules import RuleBook
from gglib.gateway.relay.routes import RELAYED_ROUTES
from gglib.gateway.relay.shared import RelayShared
from gglib.gateway.reload import (
    Reloader,
    check_exposure,
    door_terms,
    limits_of,
    session_header_of,
)
from gglib.gateway.server import GatewayServer, log_error
from gglib.gateway.telemetry.sending import Telemetry, open_telemetry
from gglib.given import GivenAdapters
from gglib.ports.clock import Clock
from gglib.ports.event_sink import EventSink
from gglib.services.server_logs import ServerLogs
from gglib.settings import Settings

__all__ = ["Gateway", "open_gateway"]


@attrs.frozen
class Gateway:
    """A gateway that accepts connections."""

    address: str
    """``http://HOST:PORT`` or ``https://HOST:PORT``, without a path."""
    admin_token: str = attrs.field(repr=False)
    model_count: int
    stop: Callable[[], None]
    """Begin a graceful end; the context manager's block should then end."""
    cut: Callable[[], None]
    """Break off what a graceful end still waits for."""
    reload: Callable[[], Coroutine[Any, Any, None]]
    """Read the settings anew, and take up what has changed; what comes of it is an event."""


@contextlib.asynccontextmanager
async def open_gateway(
    settings: Settings,
    *,
    events: EventSink,
    clock: Clock | None = None,
    given: GivenAdapters | None = None,
    reread: Callable[[], Settings] | None = None,
) -> AsyncIterator[Gateway]:
    """Serve for the block. At its end answers in progress are finished, up to the deadline.

    ``given`` takes the place of installed adapters. ``reread`` reads the settings from where
    ``settings`` came from, when they are to be reloaded; without it they cannot be.

    Raises:
        ConfigurationError: the certificate is none to show.
        Forbidden: the address is not loopback, and there is neither a key nor ``insecure``.
        GatewayRunning: the data directory has a gateway already.
        PortInUse: somebody listens on the port.
        ConfigurationError: telemetry is asked for, and the extra for it is not there.
    """
    check_exposure(settings.gateway)
    certificate = await anyio.to_thread.run_sync(read_certificate, settings.gateway)
    tls = None if certificate is None else ServerTls(certificate)
    loads = Loads()
    feed = EventFeed(events, loads)
    async with (
        compose(settings, events=feed, clock=clock, given=given) as parts,
        open_telemetry(settings, events=feed, clock=parts.clock) as telemetry,
    ):
        log = feed.emit if settings.gateway.access_log else None
        meter = telemetry.meter(RELAYED_ROUTES, log=log, now=parts.clock.now, loads=loads)
        with hold_presence(settings.data_dir) as presence:
            processes = await parts.process_table()
            listener = bind(
                settings.gateway.host, settings.gateway.port, holder=processes.holder_of_port
            )
            with contextlib.closing(listener):
                async with _serve(
                    parts, presence, listener, tls, feed, meter, telemetry, reread
                ) as gateway:
                    yield gateway


@contextlib.asynccontextmanager
async def _serve(
    parts: Composition,
    presence: PresenceKeeper,
    listener: socket.socket,
    tls: ServerTls | None,
    feed: EventFeed,
    meter: Meter,
    telemetry: Telemetry,
    reread: Callable[[], Settings] | None,
) -> AsyncIterator[Gateway]:
    settings = parts.settings.gateway
    models = await parts.models()
    serving = await parts.serving(OwnerKind.GATEWAY)
    adopts = settings.orphans == "adopt"
    asker = Asker.ADOPTING_GATEWAY if adopts else Asker.STOPPING_GATEWAY
    found = await parts.reconcile(asker)
    address = url_of(listener, settings.host, scheme="http" if tls is None else "https")
    certificate = None if tls is None else tls.certificate
    started_at = parts.clock.now()
    model_count = len(await models.list())
    async with parts.pool(serving) as (router, pool):
        shared = RelayShared(
            router=router,
            models=models,
            doors=Doors(admin_token=presence.admin_token, **door_terms(settings, certificate)),
            limits=limits_of(settings),
            session_header=session_header_of(settings),
            loading_state=settings.loading_state,
            rule_book=RuleBook(parts.settings.inference),
            on_task_error=log_error,
            meter=meter,
            turns=telemetry.turns,
        )
        pulls = await parts.pulls()
        logs = ServerLogs(await parts.registry(), await parts.runners())
        reloader = Reloader(
            parts,
            reread or _no_file,
            shared=shared,
            models=models,
            serving=serving,
            router=router,
            pool=pool,
            tls=tls,
        )
        server = GatewayServer(
            shared,
            pool,
            feed,
            logs,
            shutdown_timeout_s=settings.shutdown_timeout_s,
            reload=reloader.reload,
            tls=None if tls is None else tls.context,
            pulls=pulls,
        )

        def announce(shown: Certificate | None) -> None:
            presence.announce(
                address,
                version=__version__,
                started_at=started_at,
                certificate=None if shown is None else shown.pem,
            )

        reloader.on_applied(server.change)
        reloader.on_new_certificate(_forgiving(announce))
        router.on_server_gone(server.drop_server)
        adoption = Adoption(
            partial(parts.reconcile, asker),
            await parts.runners(),
            models=models,
            serving=serving,
            router=router,
            pool=pool,
            away=found.away,
        )
        await adoption.adopt(found.adoptable)
        await pool.measure(afresh=True)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(models.watch, router.take_note)
            tasks.start_soon(pool.keep)
            tasks.start_soon(telemetry.push_metrics, Metrics(meter, router, pool).collect)
            tasks.start_soon(reloader.watch)
            tasks.start_soon(keep_pulling, pulls, log_error)
            tasks.start_soon(server.serve_on, listener)
            tasks.start_soon(adoption.adopt_returning)
            reloader.tell_doubts(parts.settings)
            announce(certificate)
            parts.events.emit(GatewayStarted(at=parts.clock.now(), address=address))
            size = parts.settings.pool
            tasks.start_soon(partial(pool.warm_up, size.warmup, models, count=size.min_size))

            def stop() -> None:
                router.begin_shutdown()
                server.stop()

            try:
                yield Gateway(
                    address,
                    presence.admin_token,
                    model_count,
                    stop,
                    server.cut,
                    reloader.try_reload,
                )
            finally:
                stop()
                with anyio.CancelScope(shield=True):
                    await server.wait_ended()
                tasks.cancel_scope.cancel()
        shared.pools.close()
    parts.events.emit(GatewayStopped(at=parts.clock.now(), address=address))


def _forgiving(announce: Callable[[Certificate], None]) -> Callable[[Certificate], None]:
    """Return ``announce`` for a gateway that runs: a full disk must not end it."""

    def announce_if_possible(shown: Certificate) -> None:
        with contextlib.suppress(OSError):
            announce(shown)

    return announce_if_possible


def _no_file() -> Settings:
    raise NotConfigured("reload", "this gateway was given its settings by a program")
