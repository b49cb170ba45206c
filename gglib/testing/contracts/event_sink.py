"""What every event sink promises."""

from __future__ import annotations

import inspect
import threading
import time
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

import attrs
import pytest

from gglib.domain import events
from gglib.domain.events import Event
from gglib.ports.event_sink import EventSink
from gglib.testing.contracts.backends import Contract

__all__ = ["EVENT_KINDS", "EventSinkContract", "sample_event"]

#: Every event there is.
EVENT_KINDS: tuple[type[Event], ...] = tuple(
    kind for _, kind in inspect.getmembers(events, inspect.isclass) if issubclass(kind, Event)
)

#: Values by type; the first is ordinary, the others are what may come all the same.
_SAMPLES: dict[Any, tuple[Any, ...]] = {
    str: ("qwen", "", "düne 模型\r\n\x1b[31m\0{}%s", "\udcff", "x" * 100_000),
    int: (4711, 0, -1, 2**70),
    float: (1_700_000_000.5, 0.0, float("inf"), float("nan")),
    bool: (True, False),
    type(None): (None,),
}

_ROUNDS = max(len(values) for values in _SAMPLES.values())


@attrs.frozen(kw_only=True)
class _NewEvent(Event):
    """One that a sink has never heard of."""

    name: ClassVar[str] = "conformance.checked"
    things: tuple[object, ...] = ()


def sample_event(kind: type[Event], number: int = 0) -> Event:
    """Return an event of that kind; 0 is an ordinary one, other numbers are stranger."""
    hints = get_type_hints(kind)
    return kind(**{field.name: _sample(hints[field.name], number) for field in attrs.fields(kind)})


def _sample(hint: Any, number: int) -> Any:
    if get_origin(hint) is tuple:
        # Of any length: one more at each step.
        return _SAMPLES[get_args(hint)[0]][: 1 + number % _ROUNDS]
    values = [value for part in get_args(hint) or (hint,) for value in _SAMPLES[part]]
    return values[number % len(values)]


class EventSinkContract(Contract):
    """What every event sink keeps.

    Subclass it in a test module under a name that begins with ``Test``, and override the
    fixture ``sink``::

        class TestMySink(EventSinkContract):
            @pytest.fixture
            def sink(self):
                return MySink()
    """

    longest_emit_s: float = 0.05
    """How long one ``emit`` may take at the most, in the mean of many."""

    @pytest.fixture
    def sink(self) -> EventSink:
        """Return the sink."""
        raise NotImplementedError("override the fixture sink: return your sink")

    def test_sink_is_of_the_port(self, sink: EventSink) -> None:
        """Bootstrap and the test kit take subclasses only."""
        assert isinstance(sink, EventSink), "a sink must be a subclass of EventSink"

    @pytest.mark.parametrize("kind", EVENT_KINDS)
    def test_every_event_is_taken(self, sink: EventSink, kind: type[Event]) -> None:
        """Of any kind, with ordinary values; nothing comes back."""
        event, same = sample_event(kind), sample_event(kind)

        result: object = sink.emit(event)

        assert result is None, "emit() must return nothing"
        assert event == same, "emit() must leave the event as it is"

    @pytest.mark.parametrize("kind", EVENT_KINDS)
    def test_strange_values_raise_nothing(self, sink: EventSink, kind: type[Event]) -> None:
        """Texts that no file takes, numbers that no JSON has: the event has happened already."""
        for number in range(_ROUNDS):
            _emit(sink, sample_event(kind, number))

    def test_event_of_a_later_version_is_taken(self, sink: EventSink) -> None:
        """A kind that the sink does not know, with values of any type."""
        _emit(sink, _NewEvent(at=1.0, things=(object(), {"a": {1}}, b"\xff")))

    def test_event_is_taken_twice(self, sink: EventSink) -> None:
        """Equal events may follow each other."""
        event = sample_event(events.ServerReady)
        for _ in range(2):
            _emit(sink, event)

    async def test_event_loop_is_not_held_up(self, sink: EventSink) -> None:
        """``emit`` is called from the loop, and returns at once."""
        began = time.monotonic()
        for _ in range(100):
            _emit(sink, sample_event(events.ServerReady))
        took_s = time.monotonic() - began

        assert took_s / 100 <= self.longest_emit_s, (
            f"emit() must never block: 100 calls took {took_s:.1f} s"
        )

    def test_events_come_from_any_thread(self, sink: EventSink) -> None:
        """Several at once, without an event loop."""
        problems: list[BaseException] = []
        together = threading.Barrier(8)

        def emit() -> None:
            together.wait()
            try:
                for kind in EVENT_KINDS:
                    sink.emit(sample_event(kind))
            except BaseException as problem:
                problems.append(problem)

        threads = [threading.Thread(target=emit, daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=10)

        assert not any(thread.is_alive() for thread in threads), "emit() must never block"
        assert problems == [], "emit() must not raise, from any thread"


def _emit(sink: EventSink, event: Event) -> None:
    try:
        sink.emit(event)
    except Exception as problem:
        pytest.fail(f"emit() must never raise; {type(event).__name__} raised {problem!r}")
