"""One request and its answer, below litestar: a body in bounds, lines as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from litestar.types import Receive, Scope, Send

from gglib.domain.access import Grant
from gglib.errors import InvalidRequest
from gglib.gateway.measures import Measures
from gglib.gateway.ollama.errors import as_json
from gglib.gateway.problems import ProblemAnswer

__all__ = ["BodyTooLarge", "Exchange"]

_JSON = (("content-type", "application/json; charset=utf-8"),)
_LINES = (("content-type", "application/x-ndjson"),)


class BodyTooLarge(InvalidRequest):
    """The body goes beyond the gateway's limit."""


class ClientGone(Exception):
    """Nobody is there any more."""


class Exchange:
    """One request, and what is sent for it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state: dict[str, Any] = scope["state"]
        self.measures: Measures = state["measures"]
        self.request_id: str = state["request_id"]
        self.grant: Grant = scope["auth"]
        """What whoever asks may do."""
        self._headers = scope["headers"]
        self._receive = receive
        self._send = send
        self.started = False
        """Whether lines are on their way: then nothing else can be said but in a line."""

    def header(self, name: bytes) -> str | None:
        """Return the value of a header, by its name in lower case; of several, the first."""
        for key, value in self._headers:
            if key == name:
                return value.decode("latin-1")
        return None

    async def read_body(self, limit_bytes: int) -> bytes:
        """Return the request's body.

        Raises:
            BodyTooLarge: there is more of it.
            ClientGone: the rest will never come.
        """
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientGone
            part = message["body"]
            size += len(part)
            if size > limit_bytes:
                raise BodyTooLarge(
                    f"the body is larger than {limit_bytes} bytes, the limit of this gateway"
                )
            parts.append(part)
            if not message["more_body"]:
                self.measures.note_whole()
                return b"".join(parts)

    async def while_there(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do ``work`` until it is done, or until the client leaves."""
        # Tasks of asyncio's own: a scope of anyio's does not cancel what is about to wake, and
        # a task that is sent more than it can pass on is always about to.
        working = asyncio.ensure_future(work())
        watching = asyncio.ensure_future(self._client_gone())
        try:
            await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            working.cancel()
            await asyncio.wait((working, watching))
        if not working.cancelled():
            working.result()

    async def _client_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def answer(self, value: Any) -> None:
        """Send an answer that is whole."""
        self.measures.note_first_byte()
        await self._whole(200, _JSON, as_json(value))

    async def refuse(self, refusal: ProblemAnswer) -> None:
        """Send an error: as the answer, or as the last line of one that has begun."""
        if self.started:
            await self._body(refusal.body + b"\n", more=False)
        else:
            await self._whole(refusal.status, refusal.headers, refusal.body)

    async def line(self, value: Any) -> None:
        """Send one line. Waits while the client does not read."""
        if not self.started:
            self.started = True
            self.measures.streamed = True
            self.measures.complete = False
            self.measures.note_first_byte()
            await self._head(200, _LINES)
        await self._body(as_json(value) + b"\n", more=True)

    async def end(self) -> None:
        """End the lines."""
        self.measures.complete = True
        await self._body(b"", more=False)

    async def _whole(self, status: int, headers: tuple[tuple[str, str], ...], body: bytes) -> None:
        await self._head(status, (*headers, ("content-length", str(len(body)))))
        await self._body(body, more=False)

    async def _head(self, status: int, headers: tuple[tuple[str, str], ...]) -> None:
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(name.encode(), value.encode()) for name, value in headers],
            }
        )

    async def _body(self, body: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})
