"""Metrics, sent every now and then: counted in the gateway's loop, sent by a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import anyio
from opentelemetry.sdk.metrics.export import MetricExporter, MetricsData

__all__ = ["MetricPush"]


class MetricPush:
    """Sends what ``collect`` returns. A collector that hangs is behind, and nobody waits for it."""

    def __init__(self, exporter: MetricExporter, *, interval_s: float) -> None:
        self._exporter = exporter
        self._interval_s = interval_s
        self._next: queue.Queue[MetricsData | None] = queue.Queue(maxsize=1)
        # A daemon: at the end nobody waits longer for it than ``end`` does.
        self._thread = threading.Thread(target=self._send_all, name="gglib metrics", daemon=True)
        self._thread.start()

    def _send_all(self) -> None:
        while (data := self._next.get()) is not None:
            self._exporter.export(data)
        self._exporter.shutdown()

    async def run(self, collect: Callable[[], MetricsData]) -> None:
        """Send every interval, and once more when this is cancelled."""
        try:
            while True:
                await anyio.sleep(self._interval_s)
                self._offer(collect())
        finally:
            self._offer(collect())

    def _offer(self, data: MetricsData | None) -> None:
        try:
            self._next.put_nowait(data)
        except queue.Full:
            # What waits is older; of counters the newer says it all.
            self._take_back()
            self._next.put_nowait(data)

    def _take_back(self) -> None:
        try:
            self._next.get_nowait()
        except queue.Empty:
            return

    def end(self, deadline_s: float) -> None:
        """Return when all is sent, or the deadline is over. Blocks."""
        try:
            self._next.put(None, timeout=deadline_s)
        except queue.Full:
            return
        self._thread.join(deadline_s)
