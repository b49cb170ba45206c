"""The gateway's own routes, counted as they are answered."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, cast

from gglib.gateway.measures import Measures
from gglib.gateway.meter import OTHER_ROUTE, Meter

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["MeteredApp"]

_CLIENT_GONE = 499


class MeteredApp:
    """An ASGI application that tells ``meter`` of each request to ``app``.

    HEAD is asked as GET: the server leaves the body out.
    """

    def __init__(self, app: ASGIApp, meter: Meter) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the application does."""
        measures = Measures()
        scope["state"]["measures"] = measures
        if scope.get("method") == "HEAD":
            state = {**scope["state"], "head_only": True}
            scope = cast("Scope", {**scope, "method": "GET", "state": state})
        status = _CLIENT_GONE

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            client = scope.get("client")
            measures.complete = measures.complete and status != _CLIENT_GONE
            self._meter.answered(
                # litestar's; without it nothing was found there.
                scope.get("path_template") or OTHER_ROUTE,
                status,
                client=client[0] if client else None,
                request_id=scope["state"]["request_id"],
                duration_s=monotonic() - measures.began_at,
                measures=measures,
            )
