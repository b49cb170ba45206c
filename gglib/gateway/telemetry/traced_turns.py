"""Relayed requests that have a span each, and the meter that knows when they are over."""

from __future__ import annotations

import time
from time import monotonic
from typing import TYPE_CHECKING

from gglib.errors import EngineDied, GglibError
from gglib.gateway.meter import Meter
from gglib.gateway.problems import error_object
from gglib.gateway.relay.metered import MeteredTurn
from gglib.gateway.relay.passthrough import PassThroughTurn
from gglib.gateway.relay.relayed import RelayTurn
from gglib.gateway.relay.tunnel import TunnelTurn
from gglib.gateway.relay.turn_kinds import TurnKinds
from gglib.gateway.relay.upstream import UpstreamPool
from gglib.gateway.relay.usage import NO_USAGE, usage_in
from gglib.services.routing.router import Lease

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from gglib.gateway.telemetry.tracing import Tracing

__all__ = ["TracingMeter", "traced_turns"]


class _TracedTurn(RelayTurn):
    """A relayed request with a span, from when it is whole until its answer is over."""

    tracing: Tracing
    """Of the gateway; set in a class of its own for each."""
    _span: Span | None = None
    _span_began_at = 0.0
    _error_type: str | None = None
    _sent = 0

    @property
    def _route_name(self) -> str:
        return self.shared.meter.route_of(self.route or self.target)

    def _begin(self) -> None:
        self._span_began_at = time.time()
        method = self._method.decode("latin-1")
        self._span = self.tracing.begin(self._head, method, self._route_name)
        super()._begin()

    def _send(self, lease: Lease) -> None:
        self._sent += 1
        if self._span is not None:
            self.tracing.note_attempt(self._span, lease.server, self._sent, self._span_began_at)
        super()._send(lease)

    def _request_prefix(self, pool: UpstreamPool) -> bytes:
        prefix = super()._request_prefix(pool)
        return prefix if self._span is None else self.tracing.inject(self._span, prefix)

    def answer_error(self, error: GglibError, *, status: int | None = None) -> None:
        self._note_error(error)
        super().answer_error(error, status=status)

    def _break_off(self, lease: Lease, reason: str) -> None:
        self._note_error(EngineDied(lease.server.model.name, reason))
        super()._break_off(lease, reason)

    def _note_error(self, error: GglibError) -> None:
        code = error_object(error)["code"]
        self._error_type = str(code) if code else type(error).__name__
        if self._span is not None:
            message = str(error)[:1000]
            self._span.add_event("exception", {"exception.message": message})

    def end_span(self) -> None:
        """End the span: what is known of the request by now is all there is."""
        span, self._span = self._span, None
        if span is None:
            return
        counts, requested = self.counts, self._requested
        usage = usage_in(self.head, self.tail) if self.head and self.tells_usage else NO_USAGE
        first_byte_s = self.first_byte_s
        if first_byte_s is None and self.head and self.status < 400:
            # It came with the rest.
            first_byte_s = monotonic() - self.began_at
        self.tracing.end(
            span,
            route=self._route_name,
            asked_model=None if requested is None else requested.model,
            model=None if counts is None else counts.model_name,
            status=self.status,
            complete=self.complete,
            error_type=self._error_type,
            attributes={
                "gglib.request_id": self.request_id.decode("latin-1"),
                "gglib.queue_wait_s": self.queue_wait_s,
                "gglib.first_byte_s": first_byte_s,
                "gglib.streamed": self.is_event_stream,
                "gen_ai.usage.input_tokens": usage.prompt_tokens,
                "gen_ai.usage.output_tokens": usage.completion_tokens,
            },
        )


class TracingMeter(Meter):
    """Ends the span of each relayed request when it is counted."""

    def ended(self, turn: MeteredTurn) -> None:
        """See ``Meter``."""
        super().ended(turn)
        if isinstance(turn, _TracedTurn):
            turn.end_span()


def traced_turns(tracing: Tracing) -> TurnKinds:
    """Return classes of requests whose spans are made by ``tracing``."""

    class TracedRelay(_TracedTurn):
        """Its model is in its body."""

    class TracedPassThrough(_TracedTurn, PassThroughTurn):
        """Its model is in its path."""

    class TracedTunnel(_TracedTurn, TunnelTurn):
        """It leaves HTTP behind."""

    for kind in (TracedRelay, TracedPassThrough, TracedTunnel):
        kind.tracing = tracing
    return TurnKinds(relay=TracedRelay, pass_through=TracedPassThrough, tunnel=TracedTunnel)
