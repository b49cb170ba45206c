"""Logs: structured events on standard error, for people or as JSON lines."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Any

import attrs

from gglib.domain.events import Event
from gglib.ports.event_sink import EventSink

__all__ = ["LogSink", "SilentSink", "configure_logs"]


class SilentSink(EventSink):
    """Drops events: for commands whose output is their answer."""

    __slots__ = ()

    def emit(self, event: Event) -> None:
        """Drop ``event``."""


class LogSink(EventSink):
    """Writes each event as one log line, its name first."""

    __slots__ = ("_log",)

    def __init__(self) -> None:
        import structlog

        self._log: Any = structlog.get_logger("gglib")

    def emit(self, event: Event) -> None:
        """Write ``event``."""
        fields = {
            field.name: getattr(event, field.name)
            for field in attrs.fields(type(event))
            if field.name != "at"
        }
        warns = event.name.endswith(("failed", "left", "missed", "unhealthy"))
        level = "warning" if warns else "info"
        # Standard error may be a pipe that nobody reads any more: what happened has happened.
        with suppress(OSError, ValueError):
            getattr(self._log, level)(event.name, **fields)


def configure_logs(*, json_lines: bool = False, debug: bool = False) -> None:
    """Send structlog's and the standard library's records to standard error, in one form."""
    import structlog

    level = logging.DEBUG if debug else logging.INFO
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if json_lines
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processor=renderer, foreign_pre_chain=[*shared, structlog.processors.format_exc_info]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if debug else logging.WARNING)
