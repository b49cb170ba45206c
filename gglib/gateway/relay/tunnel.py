"""A connection that is upgraded, mostly to a WebSocket: bytes both ways, until one side ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gglib.errors import ServerUntrusted
from gglib.gateway.relay.passthrough import PassThroughTurn
from gglib.gateway.relay.upstream import UpstreamPool
from gglib.services.routing.router import Lease
from gglib.services.routing.state import Closing
from gglib.services.serving import RunningServer

if TYPE_CHECKING:
    from gglib.gateway.relay.connection import GatewayProtocol
    from gglib.gateway.relay.heads import RequestHead

__all__ = ["TunnelTurn"]

#: What a client may send before the engine's side is open.
_MAX_EARLY_BYTES = 64 * 1024


class _FarSide(asyncio.Protocol):
    """The engine's end."""

    def __init__(self, turn: TunnelTurn) -> None:
        self._turn = turn
        self.transport: asyncio.Transport = None  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._turn.from_engine(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._turn.far_side_ended()

    def pause_writing(self) -> None:
        self._turn.connection.flow.pause_reading()

    def resume_writing(self) -> None:
        self._turn.connection.flow.resume_reading()


class TunnelTurn(PassThroughTurn):
    """A request to change protocols. What the engine says to it, and all after it, passes as it is.

    It holds its lease to its end, and its connection ends with it.
    """

    def __init__(
        self,
        connection: GatewayProtocol,
        method: bytes,
        model: str,
        target: bytes,
        head: RequestHead,
        protocol: bytes,
    ) -> None:
        super().__init__(connection, method, model, target, head, False)
        self._head_end = b"\r\nconnection: upgrade\r\nupgrade: %b\r\n\r\n" % protocol
        self._far: _FarSide | None = None
        self._early = b""

    def _send(self, lease: Lease) -> None:
        self._lease = lease
        self.note_grant(lease.server.model.name)
        self._spawn(self._open(lease, self.shared.pools.of(lease.server)))

    async def _open(self, lease: Lease, pool: UpstreamPool) -> None:
        try:
            far = await pool.dialer.open(lambda: _FarSide(self))
        except OSError as error:
            await self._after_failure(lease, str(error))
            return
        except ServerUntrusted as error:
            self.answer_error(error)
            return
        if self.disconnected:
            far.transport.abort()
            return
        self._far = far
        self._head_sent = True
        # What the engine really says to it is not read here.
        self.status = 101
        self._write_far(far, self._bodiless_head(pool) + self._early)
        self._early = b""

    def from_client(self, data: bytes) -> None:
        """Pass on what the client sends."""
        if self.response_complete:
            return
        self._heard = True
        if self._far is not None:
            self._write_far(self._far, data)
        elif len(self._early) + len(data) <= _MAX_EARLY_BYTES:
            self._early += data
        else:
            self.abort()

    def from_engine(self, data: bytes) -> None:
        """Pass on what the engine sends."""
        self._heard = True
        self.shared.meter.bytes_to_clients += len(data)
        self.write(data)

    def _write_far(self, far: _FarSide, data: bytes) -> None:
        self.shared.meter.bytes_to_engines += len(data)
        far.transport.write(data)

    def far_side_ended(self) -> None:
        """The engine has closed: so do we, after what it has said."""
        self._far = None
        self._release()
        if not self.response_complete:
            self.finish()

    def on_client_gone(self) -> None:
        far, self._far = self._far, None
        super().on_client_gone()
        if far is not None:
            far.transport.abort()

    def on_server_cut(self, server: RunningServer, why: Closing) -> None:
        del why
        if self._far is not None and self._lease is not None and self._lease.server is server:
            self._far.transport.abort()

    def on_writable(self, writable: bool) -> None:
        if self._far is None:
            return
        if writable:
            self._far.transport.resume_reading()
        else:
            self._far.transport.pause_reading()

    def check(self, now: float) -> None:
        """End it when neither side says anything: nobody holds a place in memory by silence."""
        limit_s = self.shared.limits.silence_timeout_s
        if self._heard or self._far is None:
            self._heard = False
            self._silent_since = now
        elif limit_s is not None and now - self._silent_since > limit_s:
            self._far.transport.abort()
