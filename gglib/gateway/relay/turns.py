"""One request's turn on its connection: answers leave in the order in which requests came."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gglib.errors import GglibError
from gglib.gateway.meter import OTHER_ROUTE
from gglib.gateway.problems import ProblemAnswer, answer_for
from gglib.gateway.relay.wire import whole_answer

if TYPE_CHECKING:
    from gglib.gateway.relay.connection import GatewayProtocol

__all__ = ["AnswerTurn", "PreflightTurn", "Turn"]


class Turn:
    """A request that is not ASGI's. Shares the attributes of uvicorn's cycle that uvicorn reads.

    A turn is fed its body while it may still wait for the answers ahead of it; once
    ``activate`` was called, it owns the connection's output until ``finish``.
    """

    # Class attributes are the defaults of instances: a request sets what it changes.
    response_complete = False
    status = 0
    """Of the answer; 0 = there is none yet."""
    disconnected = False
    active = False
    request_complete = False
    body_bytes = 0
    cors_lines = b""
    """Of the answer's head: what lets the page that asked read it."""

    def __init__(self, connection: GatewayProtocol, *, keep_alive: bool) -> None:
        self.connection = connection
        self.keep_alive = keep_alive

    def on_body(self, data: bytes) -> None:
        """Take a piece of the request's body."""
        self.body_bytes += len(data)

    def on_request_complete(self) -> None:
        """The request is complete."""
        self.request_complete = True

    def activate(self) -> None:
        """Every answer ahead has left: answer."""
        self.active = True

    def refuse(self, error: GglibError, status: int) -> None:
        """What is being sent of the request is no good: answer so, in turn, and close."""

    def on_client_gone(self) -> None:
        """The client has left: end whatever works for it."""
        self.disconnected = True

    def on_writable(self, writable: bool) -> None:
        """The client reads again, or does not keep up."""

    def check(self, now: float) -> None:
        """Look whether something takes too long; called every now and then while active."""

    def write(self, data: bytes) -> None:
        """Send bytes of the answer."""
        self.connection.transport.write(data)

    def finish(self) -> None:
        """The answer is complete: the connection goes on to the next, or closes."""
        self.response_complete = True
        self.connection.turn_finished(self)

    def abort(self) -> None:
        """Break the connection, so that nobody takes a piece for the whole."""
        self.response_complete = True
        self.keep_alive = False
        self.connection.transport.abort()

    def answer_with(
        self,
        error: GglibError,
        *,
        status: int | None,
        request_id: bytes,
    ) -> None:
        """Answer with ``error``, whole, and finish."""
        self.send(answer_for(error, status=status), request_id=request_id)

    def send(self, answer: ProblemAnswer, *, request_id: bytes, head_only: bool = False) -> None:
        """Send a whole answer, and finish."""
        self.status = answer.status
        self.write(
            whole_answer(
                answer.status,
                answer.body,
                headers=(*answer.headers, ("x-request-id", request_id.decode("latin-1"))),
                lines=self.cors_lines,
                close=not self.keep_alive,
                head_only=head_only,
            )
        )
        self.finish()


class PreflightTurn(Turn):
    """A browser's question whether a page may send a request: it may, whatever the request is.

    Whether the request is let in is decided when it comes.
    """

    def __init__(
        self,
        connection: GatewayProtocol,
        cors_lines: bytes,
        asked_headers: str | None,
        *,
        keep_alive: bool,
    ) -> None:
        super().__init__(connection, keep_alive=keep_alive)
        self.cors_lines = cors_lines
        self._asked_headers = asked_headers or "authorization, content-type"

    def on_request_complete(self) -> None:
        """See ``Turn``."""
        self.request_complete = True
        if self.active:
            self._answer()

    def activate(self) -> None:
        """See ``Turn``."""
        self.active = True
        if self.request_complete:
            self._answer()

    def _answer(self) -> None:
        headers = (
            ("access-control-allow-methods", "GET, HEAD, POST, PUT, PATCH, DELETE"),
            ("access-control-allow-headers", self._asked_headers),
            ("access-control-max-age", "600"),
        )
        close = not self.keep_alive
        self.write(whole_answer(200, b"", headers=headers, lines=self.cors_lines, close=close))
        self.finish()


class AnswerTurn(Turn):
    """A refusal: its answer is known before its request's body is read.

    The body, if there is one, is read and dropped first, so that the connection can go on.
    """

    def __init__(
        self,
        connection: GatewayProtocol,
        answer: ProblemAnswer,
        *,
        keep_alive: bool,
        request_id: bytes | None = None,
        head_only: bool = False,
        route: str = OTHER_ROUTE,
    ) -> None:
        """``request_id``: the client's own, if it sent one."""
        super().__init__(connection, keep_alive=keep_alive)
        self._refusal = answer
        self._request_id = request_id
        self._head_only = head_only
        self._route = route

    def on_request_complete(self) -> None:
        """See ``Turn``."""
        self.request_complete = True
        if self.active:
            self._answer()

    def activate(self) -> None:
        """See ``Turn``."""
        self.active = True
        if self.request_complete:
            self._answer()

    def refuse(self, error: GglibError, status: int) -> None:
        """See ``Turn``: it is refused already, and that refusal stands."""
        self.keep_alive = False
        self.on_request_complete()

    def _answer(self) -> None:
        connection = self.connection
        request_id = self._request_id or connection.shared.request_ids.make()
        self.send(self._refusal, request_id=request_id, head_only=self._head_only)
        connection.shared.meter.answered(
            self._route,
            self.status,
            client=connection.client and connection.client[0],
            request_id=request_id.decode("ascii"),
        )
