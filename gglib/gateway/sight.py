"""The routes that show what goes on: metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio.to_thread
import attrs
from litestar import Response, get
from litestar.datastructures import State

from gglib.gateway.event_feed import EventFeed
from gglib.gateway.metrics import CONTENT_TYPE, Metrics, as_text
from gglib.services.models import ModelService
from gglib.services.server_logs import ServerLogs

__all__ = ["ROUTES", "Sight"]

_MAX_TAIL_LINES = 10_000


@attrs.frozen(kw_only=True)
class Sight:
    """What the handlers work with."""

    metrics: Metrics
    feed: EventFeed
    logs: ServerLogs
    models: ModelService
    ending: Callable[[], Awaitable[object]]
    """Returns when the gateway is about to end: endless answers end then."""


def _sight(state: State) -> Sight:
    sight: Sight = state["sight"]
    return sight


@get("/metrics")
async def metrics(state: State) -> Response[bytes]:
    """Tell every metric, in Prometheus' text format."""
    # Counted in this loop; written in a thread, since thousands of lines take their time.
    text = await anyio.to_thread.run_sync(as_text, _sight(state).metrics.collect())
    return Response(text, media_type=CONTENT_TYPE)


ROUTES = (metrics,)
