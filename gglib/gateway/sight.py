"""The routes that show what goes on: metrics, events as they happen, and engines' output."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Annotated

import anyio.to_thread
import attrs
from litestar import Response, get
from litestar.datastructures import State
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.types import ASGIApp

from gglib.gateway.event_feed import EventFeed
from gglib.gateway.event_stream import EventStream, server_sent
from gglib.gateway.metrics import CONTENT_TYPE, Metrics, as_text
from gglib.services.models import ModelService
from gglib.services.server_logs import ServerLogs, ServerOutput

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


@get("/admin/events", sync_to_thread=False)
def events(state: State) -> ASGIApp:
    """Tell events as they happen, from now on."""
    sight = _sight(state)
    return EventStream(_happening(sight.feed), until=sight.ending)


@get("/admin/logs/{name:path}")
async def logs(
    state: State,
    name: FromPath[str],
    tail: Annotated[int, QueryParameter(ge=0, le=_MAX_TAIL_LINES)] = 50,
    follow: FromQuery[bool] = False,
) -> ASGIApp:
    """Tell what a model's engine has printed: the last lines, and with ``follow`` new ones."""
    sight = _sight(state)
    model = (await sight.models.resolve(name.removeprefix("/"))).model
    output = await sight.logs.latest(model.name)
    return EventStream(_printed(output, tail, follow), until=sight.ending)


ROUTES = (metrics, events, logs)


async def _happening(feed: EventFeed) -> AsyncGenerator[bytes, None]:
    with feed.listen() as listener:
        while True:
            dropped, event = await listener.next()
            if dropped:
                yield server_sent("dropped", {"count": dropped})
            yield server_sent(event.name, attrs.asdict(event))


async def _printed(output: ServerOutput, tail: int, follow: bool) -> AsyncGenerator[bytes, None]:
    async with aclosing(output.lines(tail=tail, follow=follow)) as lines:
        async for line in lines:
            yield server_sent("line", {"text": line})
    # A stream that was cut has no such event.
    yield server_sent("end", {"server_id": output.handle.server_id})
