"""Every event sink keeps its port's promises."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from gglib.gateway.event_feed import EventFeed
from gglib.logs import LogSink, SilentSink, configure_logs
from gglib.ports.event_sink import EventSink
from gglib.testing import EventSinkContract, RecordingSink


class TestSilentSink(EventSinkContract):
    """Nothing is kept."""

    @pytest.fixture
    def sink(self) -> EventSink:
        return SilentSink()


class TestRecordingSink(EventSinkContract):
    """Everything is kept."""

    @pytest.fixture
    def sink(self) -> EventSink:
        return RecordingSink()


class TestEventFeed(EventSinkContract):
    """Passed on, and kept for nobody."""

    @pytest.fixture
    def sink(self) -> EventSink:
        return EventFeed(RecordingSink())


@pytest.fixture
def standard_error(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stand a stream in for standard error, and put the process's loggers back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    # As Python opens it: what has no encoding is escaped.
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
    monkeypatch.setattr(sys, "stderr", stream)
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


class TestLogSinkForPeople(EventSinkContract):
    """A line of text on standard error."""

    @pytest.fixture
    def sink(self, standard_error: None) -> EventSink:
        configure_logs()
        return LogSink()


class TestLogSinkForPrograms(EventSinkContract):
    """A line of JSON on standard error."""

    @pytest.fixture
    def sink(self, standard_error: None) -> EventSink:
        configure_logs(json_lines=True)
        return LogSink()
