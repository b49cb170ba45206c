"""What OpenTelemetry's SDK complains of, as events: not a line for every batch that is lost."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from gglib.domain.events import TelemetryFailed
from gglib.ports.clock import Clock
from gglib.ports.event_sink import EventSink

__all__ = ["troubles_told"]

#: The same complaint is told so often at most.
_AGAIN_AFTER_S = 300.0
_MAX_KINDS = 64
_LOGGER = "opentelemetry"


class _Troubles(logging.Handler):
    def __init__(self, events: EventSink, clock: Clock) -> None:
        super().__init__(logging.WARNING)
        self._events = events
        self._clock = clock
        self._told_at: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        now = self._clock.monotonic()
        kind = str(record.msg)
        if now - self._told_at.get(kind, -_AGAIN_AFTER_S) < _AGAIN_AFTER_S:
            return
        if len(self._told_at) < _MAX_KINDS:
            self._told_at[kind] = now
            self._events.emit(TelemetryFailed(at=self._clock.now(), reason=record.getMessage()))


@contextmanager
def troubles_told(events: EventSink, clock: Clock) -> Iterator[None]:
    """Have ``events`` told of the SDK's warnings for the block, and nobody else."""
    logger = logging.getLogger(_LOGGER)
    handler = _Troubles(events, clock)
    before = logger.propagate
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
