"""An endless answer: server-sent events, until the source, the client or the gateway ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

if TYPE_CHECKING:
    from litestar.types import Message, Receive, Scope, Send

__all__ = ["EventStream", "server_sent"]

#: How often a client that hears nothing is told that the line still stands.
_COMMENT_INTERVAL_S = 10.0
_COMMENT = b":\n\n"
_HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]


def server_sent(name: str, fields: dict[str, Any]) -> bytes:
    """Return one event: its name, and its fields as JSON."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(fields))


class EventStream:
    """An ASGI answer. ``events`` are sent as they come, and left when it is over.

    Not litestar's: one that is cancelled while it sends leaves its source to the garbage
    collector, which ends it in another task.
    """

    def __init__(
        self, events: AsyncGenerator[bytes, None], *, until: Callable[[], Awaitable[object]]
    ) -> None:
        """``until`` returns when the gateway is about to end."""
        self._events = events
        self._until = until

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; to a HEAD, with the head alone."""
        start: Any = {"type": "http.response.start", "status": 200, "headers": _HEADERS}
        await send(start)
        if scope["state"].get("head_only"):
            await self._events.aclose()
            await send(_piece(b"", more=False))
            return

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        async with aclosing(self._events) as events, anyio.create_task_group() as tasks:

            async def end_after(what: Callable[[], Awaitable[object]]) -> None:
                await what()
                tasks.cancel_scope.cancel()

            tasks.start_soon(end_after, gone)
            tasks.start_soon(end_after, self._until)
            tasks.start_soon(_comment, send)
            async for event in events:
                await send(_piece(event))
            tasks.cancel_scope.cancel()
        await send(_piece(b"", more=False))


async def _comment(send: Send) -> None:
    while True:
        # At the start, too: the head leaves with the first bytes of the body.
        await send(_piece(_COMMENT))
        await anyio.sleep(_COMMENT_INTERVAL_S)


def _piece(data: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}
