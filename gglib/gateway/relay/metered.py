"""A relayed request's measures: taken on its way, and counted once, at its end."""

from __future__ import annotations

from time import monotonic

from gglib.gateway.meter import UNKNOWN_MODEL, Counts
from gglib.gateway.relay.turns import Turn
from gglib.gateway.relay.usage import HEAD_BYTES, TAIL_BYTES

__all__ = ["MAX_WHOLE_BYTES", "MeteredTurn"]

#: Of a request whose client left before it was answered; nobody is sent it.
_CLIENT_GONE = 499
#: Of an answer that is kept as it is until it is counted.
MAX_WHOLE_BYTES = HEAD_BYTES + TAIL_BYTES
_MAX_TAIL_BYTES = 2 * TAIL_BYTES


class MeteredTurn(Turn):
    """A turn that knows how long each part of it took, and what its answer says of its tokens."""

    target = b""
    request_id = b""
    model_name = UNKNOWN_MODEL
    """What it waits for; once it has a server, ``counts`` knows better."""
    counts: Counts | None = None
    """Where it is counted, once it has a server."""
    began_at = 0.0
    """When it was complete, and its turn; 0 = it never was."""
    queue_wait_s = 0.0
    first_byte_s: float | None = None
    """Since ``began_at``; ``None``: not before its last byte."""
    is_event_stream = False
    tells_usage = True
    """Whether its answer is of a kind that may tell of tokens."""
    complete = True
    """Whether its client got all of the answer."""
    head = b""
    """The first bytes of the answer, or all of it."""
    tail: bytearray | None = None
    """The last bytes of the answer, if it came in pieces, or is long."""

    route: bytes | None = None
    """What it counts as, if not as ``target``."""

    @property
    def client(self) -> str | None:
        """The client's address."""
        address = self.connection.client
        return None if address is None else address[0]

    def note_grant(self, model_name: str) -> None:
        """Note that it has a server; a second one changes nothing."""
        if self.counts is None:
            target = self.route or self.target
            self.counts = self.connection.shared.meter.granted(
                target, model_name, self.queue_wait_s
            )

    def note_piece(self, data: bytes) -> None:
        """Look at a piece of the answer as it passes."""
        tail = self.tail
        if tail is not None:
            tail += data[-TAIL_BYTES:]
            # Not at every piece, so that most of them cost one copy of themselves.
            if len(tail) > _MAX_TAIL_BYTES:
                del tail[:-TAIL_BYTES]
        elif self.head:
            self.tail = bytearray(self.head + data)[-TAIL_BYTES:]
        else:
            counts = self.counts
            if self.status < 400 and counts is not None:
                self.first_byte_s = first_byte_s = monotonic() - self.began_at
                counts.model.first_byte.observe(first_byte_s)
            self.head = data
            if len(data) > MAX_WHOLE_BYTES:
                self.head = data[:HEAD_BYTES]
                self.tail = bytearray(data[-TAIL_BYTES:])

    def ends_with(self, endings: tuple[bytes, ...]) -> bool:
        """Whether the answer so far, if there is any, ends with one of these."""
        so_far = self.head if self.tail is None else self.tail
        return so_far.endswith(endings)

    def finish(self) -> None:
        """See ``Turn``."""
        self.connection.shared.meter.ended(self)
        Turn.finish(self)

    def abort(self) -> None:
        """See ``Turn``."""
        self.complete = False
        self.connection.shared.meter.ended(self)
        Turn.abort(self)

    def note_client_gone(self) -> None:
        """Count it, if it was a request, and was not counted yet."""
        if self.response_complete or not self.began_at:
            return
        self.complete = False
        self.status = self.status or _CLIENT_GONE
        self.connection.shared.meter.ended(self)
