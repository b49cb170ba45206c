"""What a client that asked for a stream is sent while it waits for a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gglib.domain.model import Model
from gglib.gateway.relay.events import COMMENT, reasoning_event
from gglib.gateway.relay.wire import LAST_CHUNK, STATUS_LINES, chunk

if TYPE_CHECKING:
    from gglib.gateway.relay.relayed import RelayTurn

__all__ = ["Vigil"]

_CHAT = b"/v1/chat/completions"
#: How often the progress of a load is told.
_PROGRESS_INTERVAL_S = 2.0
#: What an engine says instead of a stream is kept so far, to be told as an event.
_MAX_MISFIT_BYTES = 64 * 1024


class Vigil:
    """Comments, so that nobody takes the wait for a broken connection; or what it waits for.

    The first of them commits the status 200: what fails later is told by an event.
    """

    __slots__ = (
        "_next_at",
        "_place",
        "_said",
        "_turn",
        "committed",
        "misfit",
        "model",
        "waits",
    )

    def __init__(self, turn: RelayTurn) -> None:
        self._turn = turn
        self._next_at: float | None = None
        self._place: int | None = None
        self._said = ""
        self.model: Model | None = None
        self.waits = False
        """Whether it waits for a server now."""
        self.committed = False
        """Whether the answer's head has left."""
        self.misfit: list[bytes] | None = None
        """The pieces of an engine's answer that is no stream of events."""

    @property
    def tells_state(self) -> bool:
        """Whether the client is told what it waits for."""
        turn = self._turn
        return turn.shared.loading_state and turn.target.startswith(_CHAT)

    def moved(self, place: int) -> None:
        """Take note of how many stand before the request."""
        self._place = place

    def look(self, now: float) -> None:
        """Send what is due."""
        interval_s = self._turn.shared.limits.keepalive_comment_s
        if not self.waits or self._turn.disconnected:
            self._next_at = None
            return
        if self.tells_state:
            self._tell_state(now)
        elif interval_s is None:
            return
        elif self._next_at is None:
            self._next_at = now + interval_s
        elif now >= self._next_at:
            self._next_at = now + interval_s
            self.send(COMMENT)

    def _tell_state(self, now: float) -> None:
        model = self.model
        if model is None or (self._next_at is not None and now < self._next_at):
            return
        text = self._state(model)
        if text != self._said:
            self._said = text
            self._next_at = now + _PROGRESS_INTERVAL_S
            request_id = self._turn.request_id
            self.send(reasoning_event(model.name, text + "\n", request_id=request_id))

    def _state(self, model: Model) -> str:
        load = self._turn.shared.router.load_of(model)
        if load is not None:
            elapsed_s, expected_s = load
            return f"loading {model.name}: {elapsed_s:.0f} s of about {max(expected_s, 1):.0f} s"
        before = f"{self._place} before you" if self._place else "you are next"
        return f"waiting for {model.name}: {before}"

    # Bytes

    def send(self, event: bytes) -> None:
        """Send an event, and the head before the first one."""
        if not self.committed:
            self.committed = True
            self._turn.status = 200
            self._turn.write(self._head())
        self._turn.write(event if self._turn.http_1_0 else chunk(event))

    def end(self, event: bytes) -> None:
        """Send the last event, and what ends the answer."""
        self.send(event)
        if not self._turn.http_1_0:
            self._turn.write(LAST_CHUNK)

    def _head(self) -> bytes:
        turn = self._turn
        if turn.http_1_0:
            turn.keep_alive = False
        return b"".join(
            (
                STATUS_LINES[200],
                b"content-type: text/event-stream\r\ncache-control: no-cache\r\n",
                b"" if turn.http_1_0 else b"transfer-encoding: chunked\r\n",
                b"" if turn.keep_alive else b"connection: close\r\n",
                turn.cors_lines,
                b"x-request-id: ",
                turn.request_id,
                b"\r\n\r\n",
            )
        )

    def keep(self, data: bytes) -> None:
        """Keep a piece of an answer that is no stream of events."""
        assert self.misfit is not None
        if sum(map(len, self.misfit)) < _MAX_MISFIT_BYTES:
            self.misfit.append(data)

    def end_misfit(self) -> None:
        """Tell what the engine has said instead of a stream, mostly an error, and end."""
        assert self.misfit is not None
        lines = b"".join(self.misfit).strip().splitlines()
        self.end(b"".join(b"data: %b\n" % line for line in lines) + b"\n")
