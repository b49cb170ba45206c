"""The order of answers on one connection, whoever gives them: us, the relay, or ASGI."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gglib.gateway.relay.shared import RelayShared
from gglib.gateway.relay.turns import Turn

__all__ = ["OrderedConnection"]


class OrderedConnection(HttpToolsProtocol):
    """A connection whose answers leave in the order in which their requests came.

    One turn is active and owns the output; the others wait in a queue. What uvicorn does stays
    uvicorn's: ASGI cycles, write flow control, the bookkeeping of a graceful shutdown.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        shared: RelayShared,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.shared = shared
        self._limits = shared.limits
        self._active: Turn | RequestResponseCycle | None = None
        self._queue: deque[Turn | RequestResponseCycle] = deque()
        self._latest: Turn | RequestResponseCycle | None = None
        """The turn of the message that is being, or was last, read."""
        self._pumping = False
        self._reads_later = False
        """Whether reading goes on once the client reads."""
        self._moved = True
        """Whether a wait for the client began, or went on, since the last look at the time."""
        self._write_paused_since: float | None = None
        self._deaf = False
        """Whether nothing more is parsed: the connection ends after its last answer."""
        self._lingering_since: float | None = None
        self._closing_since: float | None = None
        """Since when a gateway that ends has seen it wait for the client's end of TLS."""

    # asyncio.Protocol

    def connection_lost(self, exc: Exception | None) -> None:
        turns = [self._active, *self._queue]
        self._active = None
        self._queue.clear()
        self._latest = None
        self._deaf = True
        for turn in turns:
            if isinstance(turn, Turn):
                turn.on_client_gone()
            elif turn is not None and not turn.response_complete:
                turn.disconnected = True
                turn.message_event.set()
        self.cycle = None  # type: ignore[assignment]
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_paused_since = self.loop.time()
        if isinstance(self._active, Turn):
            self._active.on_writable(False)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_paused_since = None
        if isinstance(self._active, Turn):
            self._active.on_writable(True)
        if self._reads_later:
            self._reads_later = False
            self.flow.resume_reading()
        self._pump()

    # Turns, from their place in the queue to their last byte

    def _add_turn(self, turn: Turn | RequestResponseCycle) -> None:
        if self._lingering_since is not None:
            # The last answer has left while the rest of one read was being read.
            return
        self._latest = turn
        if self._active is None and not self._queue and not self.flow.write_paused:
            self._activate(turn)
            return
        self._queue.append(turn)
        if len(self._queue) >= self._limits.max_pipelined:
            self.flow.pause_reading()

    def _pump(self) -> None:
        # A loop, not recursion: hundreds of pipelined refusals answer at once.
        if self._pumping:
            return
        self._pumping = True
        try:
            # Nobody is answered who does not read: what they are told would pile up here.
            while (
                self._queue
                and self._active is None
                and not self.flow.write_paused
                and not self.transport.is_closing()
            ):
                self._activate(self._queue.popleft())
        finally:
            self._pumping = False

    def _activate(self, turn: Turn | RequestResponseCycle) -> None:
        self._active = turn
        self._moved = True
        if isinstance(turn, Turn):
            turn.activate()
            return
        task = self.loop.create_task(turn.run_asgi(self.app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def turn_finished(self, turn: Turn) -> None:
        """Take note that a turn's answer is complete."""
        if not turn.keep_alive:
            if turn.request_complete and not self._deaf:
                self.transport.close()
            else:
                self._linger()
        self.on_response_complete()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self._active = None
        self._moved = True
        if self.transport.is_closing() or self._lingering_since is not None:
            self._queue.clear()
            return
        if self.flow.read_paused:
            if self.flow.write_paused:
                self._reads_later = True
            else:
                self.flow.resume_reading()
        if self._queue:
            self._pump()
        elif self._deaf:
            self._linger()

    def shutdown(self) -> None:
        """Begin a graceful end: answers in progress are finished, then the connection closes."""
        last = self._queue[-1] if self._queue else self._active
        if last is None:
            self.transport.close()
        else:
            last.keep_alive = False

    def check_goodbye(self, now: float) -> None:
        """End it if its client does not answer the end of TLS: an idle one may not for minutes."""
        waits = self.scheme == "https" and self.transport.is_closing()
        if not waits or self._write_paused_since is not None:
            return
        if self._closing_since is None:
            self._closing_since = now
        elif now - self._closing_since > self._limits.goodbye_s:
            self.transport.abort()

    def _linger(self) -> None:
        """Close, but read on for a while: a reset would take the last answer with it."""
        if self._lingering_since is None and not self.transport.is_closing():
            self._deaf = True
            self._lingering_since = self.loop.time()
            self.flow.resume_reading()
            if self.transport.can_write_eof():
                self.transport.write_eof()
