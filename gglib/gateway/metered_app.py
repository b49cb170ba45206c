"""The gateway's own routes, counted as they are answered."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from gglib.gateway.meter import OTHER_ROUTE, Meter

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["MeteredApp"]

_CLIENT_GONE = 499


class MeteredApp:
    """An ASGI application that tells ``meter`` of each request to ``app``."""

    def __init__(self, app: ASGIApp, meter: Meter) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the application does."""
        began_at = monotonic()
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
            self._meter.answered(
                # litestar's; without it nothing was found there.
                scope.get("path_template") or OTHER_ROUTE,
                status,
                client=client[0] if client else None,
                request_id=_request_id(scope),
                duration_s=monotonic() - began_at,
                complete=status != _CLIENT_GONE,
            )


def _request_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return value.decode("latin-1")
    return None
