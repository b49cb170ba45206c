"""A collector of OTLP over HTTP, as small as one can be: it keeps what it is sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

__all__ = ["Collector", "attributes_of", "open_collector"]


def attributes_of(found: Any) -> dict[str, Any]:
    """Return the attributes of a span, a point or a resource."""
    return {
        each.key: getattr(each.value, str(each.value.WhichOneof("value")))
        for each in found.attributes
    }


@dataclass
class Collector:
    """What has come so far."""

    address: str
    hangs: bool = False
    """Whether it takes requests and answers none."""
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    traces: list[ExportTraceServiceRequest] = field(default_factory=list)
    metrics: list[ExportMetricsServiceRequest] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)

    @property
    def spans(self) -> list[Any]:
        """Every span, in the order in which they came."""
        return [
            span
            for request in self.traces
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def latest_metrics(self) -> dict[str, Any]:
        """The metrics that came last, by name."""
        (resource,) = self.metrics[-1].resource_metrics
        (scope,) = resource.scope_metrics
        return {metric.name: metric for metric in scope.metrics}

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        """Keep a request."""
        self.paths.append(path)
        self.headers.append(headers)
        if self.hangs:
            self.release.wait(20)
        elif path.endswith("traces"):
            self.traces.append(ExportTraceServiceRequest.FromString(body))
        else:
            self.metrics.append(ExportMetricsServiceRequest.FromString(body))


@contextmanager
def open_collector(*, hangs: bool = False) -> Iterator[Collector]:
    """Collect on a free port of loopback for the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.take(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector = Collector(f"http://127.0.0.1:{server.server_port}", hangs=hangs)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield collector
    finally:
        collector.release.set()
        server.shutdown()
        thread.join()
        server.server_close()
