"""Spans of relayed requests: begun by what the client sent, told to the engine, and ended."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gglib import __version__
from gglib.gateway.relay.heads import RequestHead
from gglib.services.serving import RunningServer

__all__ = ["Tracing"]

_OPERATIONS: Mapping[str, str] = MappingProxyType(
    {
        "/v1/chat/completions": "chat",
        "/v1/messages": "chat",
        "/v1/completions": "text_completion",
        "/completion": "text_completion",
        "/infill": "text_completion",
        "/v1/embeddings": "embeddings",
    }
)
_MAX_NAME = 200
#: Of a head that goes to an engine: whose span it was sent under; and where it breaks off.
_TRACE_LINES = re.compile(rb"^trace(?:parent|state):[^\r\n]*\r\n", re.IGNORECASE | re.MULTILINE)
_OPEN_LINE = b"x-request-id: "


class Tracing:
    """Makes one span for each relayed request.

    Names of attributes: OpenTelemetry's for HTTP, and those for generative AI, which are still
    called a development there; what gglib alone knows begins with ``gglib.``.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("gglib", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, head: RequestHead, method: str, route: str) -> Span:
        """Return the span of a request, below the client's if that has told of one."""
        carrier = {
            name: value
            for name in ("traceparent", "tracestate")
            if (value := head.value_of(name.encode())) is not None
        }
        return self._tracer.start_span(
            f"{method} {route}",
            context=self._propagator.extract(carrier) if carrier else None,
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "http.route": route},
        )

    def inject(self, span: Span, prefix: bytes) -> bytes:
        """Return the head of a request to an engine, so that it is part of ``span``.

        Both are without what comes behind ``x-request-id: ``.
        """
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, set_span_in_context(span))
        lines = "".join(f"{name}: {value}\r\n" for name, value in carrier.items())
        kept = _TRACE_LINES.sub(b"", prefix).removesuffix(_OPEN_LINE)
        return kept + lines.encode("latin-1") + _OPEN_LINE

    def note_attempt(self, span: Span, server: RunningServer, number: int, began_at: float) -> None:
        """Note that a request goes to a server; ``began_at``: Unix seconds, of the request."""
        attributes: dict[str, Any] = {
            "gglib.attempt": number,
            "gglib.server_id": server.server_id,
            "gen_ai.response.model": server.model.name,
        }
        if server.handle.started_at + server.load_s >= began_at:
            # It became ready while this waited.
            attributes["gglib.load_s"] = server.load_s
        span.add_event("gglib.sent_to_server", attributes)
        span.set_attributes({"gglib.attempts": number, "gen_ai.provider.name": server.engine})

    def end(
        self,
        span: Span,
        *,
        route: str,
        asked_model: str | None,
        model: str | None,
        status: int,
        complete: bool,
        error_type: str | None,
        attributes: Mapping[str, Any],
    ) -> None:
        """End a span. ``attributes``: what is ``None`` is left out."""
        if span.is_recording():
            operation = _OPERATIONS.get(route)
            if operation is not None:
                span.set_attribute("gen_ai.operation.name", operation)
                if model is not None:
                    span.update_name(f"{operation} {model}")
            told = {
                "gen_ai.request.model": None if asked_model is None else asked_model[:_MAX_NAME],
                "gen_ai.response.model": model,
                "http.response.status_code": status or None,
                "gglib.complete": complete,
                "error.type": error_type,
                **attributes,
            }
            span.set_attributes({key: value for key, value in told.items() if value is not None})
            failed = status >= 500 or (not complete and error_type is not None)
            if failed:
                span.set_status(Status(StatusCode.ERROR, error_type))
        span.end(time.time_ns())
