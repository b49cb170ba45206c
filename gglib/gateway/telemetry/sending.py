"""Telemetry, from settings to the last batch."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import attrs

from gglib import __version__
from gglib.errors import ConfigurationError
from gglib.gateway.meter import Meter
from gglib.gateway.relay.turn_kinds import TurnKinds
from gglib.gateway.telemetry.signals import Signals, check_telemetry, signals_of
from gglib.ports.clock import Clock
from gglib.ports.event_sink import EventSink
from gglib.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from prometheus_client.metrics_core import Metric

    from gglib.gateway.telemetry.metric_push import MetricPush

__all__ = ["Telemetry", "open_telemetry"]

#: How long the end of a gateway waits for a collector, traces and metrics at once.
_LAST_WORDS_S = 3.0


@attrs.frozen(kw_only=True)
class Telemetry:
    """What a gateway sends; by default nothing."""

    turns: TurnKinds = attrs.field(factory=TurnKinds)
    """The classes of its relayed requests."""
    meter: type[Meter] = Meter
    """Of what counts them."""
    _push: MetricPush | None = None
    _resource: Resource | None = None

    async def push_metrics(self, collect: Callable[[], Iterable[Metric]]) -> None:
        """Send metrics until this is cancelled, and then once more; none if they are not wanted.

        ``collect`` is called in this task.
        """
        push, resource = self._push, self._resource
        if push is None or resource is None:
            return
        from gglib.gateway.telemetry.metric_points import metrics_data

        started_ns = time.time_ns()
        await push.run(
            lambda: metrics_data(collect(), resource, started_ns=started_ns, now_ns=time.time_ns())
        )


@asynccontextmanager
async def open_telemetry(
    settings: Settings, *, events: EventSink, clock: Clock
) -> AsyncIterator[Telemetry]:
    """Send as the settings and OpenTelemetry's variables say, for the block.

    Nothing is imported, and nothing runs, unless something is to be sent. Batches are sent by
    threads of their own, queues are bounded, and what a collector does or does not do harms
    nobody here; its troubles are events.

    Raises:
        ConfigurationError: it is asked for and not installed, or a variable makes no sense.
    """
    check_telemetry(settings)
    signals = signals_of(settings.telemetry, os.environ)
    if not signals:
        yield Telemetry()
        return
    from gglib.gateway.telemetry.troubles import troubles_told

    with troubles_told(events, clock):
        try:
            resource = _resource()
            provider = _provider(signals, resource)
            push = _push(signals)
        except ValueError as error:
            reason = f"OpenTelemetry cannot be set up by its OTEL_ variables: {error}"
            raise ConfigurationError(reason, "environment") from None
        telemetry = Telemetry(push=push, resource=resource)
        if provider is not None:
            from gglib.gateway.telemetry.traced_turns import TracingMeter, traced_turns
            from gglib.gateway.telemetry.tracing import Tracing

            turns = traced_turns(Tracing(provider))
            telemetry = attrs.evolve(telemetry, turns=turns, meter=TracingMeter)
        try:
            yield telemetry
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_end, provider, push)


def _resource() -> Resource:
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource

    said = Resource.create()
    own = {SERVICE_VERSION: __version__, "service.instance.id": str(uuid.uuid4())}
    if str(said.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        return said.merge(Resource({SERVICE_NAME: "gglib", **own}))
    return Resource(own).merge(said)


def _provider(signals: Signals, resource: Resource) -> TracerProvider | None:
    if signals.traces is None:
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=signals.traces)))
    return provider


def _push(signals: Signals) -> MetricPush | None:
    if signals.metrics is None:
        return None
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    from gglib.gateway.telemetry.metric_push import MetricPush

    exporter = OTLPMetricExporter(endpoint=signals.metrics)
    return MetricPush(exporter, interval_s=signals.metric_interval_s)


def _end(provider: TracerProvider | None, push: MetricPush | None) -> None:
    """Send what is left, within the deadline."""
    deadline = time.monotonic() + _LAST_WORDS_S
    # The SDK waits for half a minute: in a thread that nobody has to wait for.
    flush = threading.Thread(target=provider.shutdown, daemon=True) if provider else None
    if flush is not None:
        flush.start()
    if push is not None:
        push.end(_LAST_WORDS_S)
    if flush is not None:
        flush.join(max(0.0, deadline - time.monotonic()))
