"""What the gateway's own answers are counted with, noted by whoever gives them."""

from __future__ import annotations

from time import monotonic

import attrs

from gglib.gateway.meter import UNKNOWN_MODEL
from gglib.gateway.relay.usage import NO_USAGE, Usage

__all__ = ["Measures"]

_MOST_TOKENS = 10**12


@attrs.define
class Measures:
    """One request's. Times are of the monotonic clock; spans of it are seconds."""

    began_at: float = attrs.field(factory=monotonic)
    """When it was whole, or, for one whose body nobody reads, when it came."""
    model_name: str = UNKNOWN_MODEL
    """The catalog's own name, never what a client said."""
    queue_wait_s: float | None = None
    """``None``: it needed no server, or has none yet."""
    first_byte_s: float | None = None
    streamed: bool = False
    complete: bool = True
    """Whether nothing of the answer is missing."""
    usage: Usage = NO_USAGE

    def note_whole(self) -> None:
        """The request is whole now."""
        self.began_at = monotonic()

    def note_server(self) -> None:
        """It has a server; a second one changes nothing."""
        if self.queue_wait_s is None:
            self.queue_wait_s = monotonic() - self.began_at

    def note_first_byte(self) -> None:
        """The answer's body begins; if it has begun before, that changes nothing."""
        if self.first_byte_s is None:
            self.first_byte_s = monotonic() - self.began_at

    def note_tokens(
        self, prompt: int | None, completion: int | None = None, completion_ns: int | None = None
    ) -> None:
        """Note what the engine counted, where it makes sense; ``completion_ns``: how long it took.

        Some other program's numbers: a counter never goes back, whatever they are.
        """
        prompt, completion = _sane(prompt), _sane(completion)
        speed = completion / completion_ns * 1e9 if completion and completion_ns else None
        self.usage = Usage(prompt, completion, speed if speed and speed > 0 else None)


def _sane(count: int | None) -> int | None:
    return count if count is not None and 0 <= count < _MOST_TOKENS else None
