"""Events reach sinks and listeners, and a slow listener harms nobody but himself."""

from __future__ import annotations

import anyio
import anyio.to_thread
import pytest

from gglib.domain.events import GatewayStarted
from gglib.gateway import event_feed
from gglib.gateway.event_feed import EventFeed
from gglib.testing.contexts import RecordingSink


@pytest.fixture
def anyio_backend() -> str:
    """The gateway's own loop."""
    return "asyncio"


def event(number: int) -> GatewayStarted:
    return GatewayStarted(at=float(number), address="http://here")


async def test_each_listener_hears_every_event_in_order() -> None:
    """From when he began to listen until he left; the sink has them all."""
    sink = RecordingSink()
    feed = EventFeed(sink)
    feed.emit(event(0))
    with feed.listen() as first:
        feed.emit(event(1))
        with feed.listen() as second:
            feed.emit(event(2))
            assert feed.listeners == 2
            assert await second.next() == (0, event(2))
        feed.emit(event(3))
        assert [await first.next() for _ in range(3)] == [(0, event(n)) for n in (1, 2, 3)]
    assert feed.listeners == 0
    assert [found.at for found in sink.events] == [0, 1, 2, 3]


async def test_slow_listener_loses_the_oldest_and_is_told_how_many() -> None:
    """Once; what he has not missed comes after."""
    kept = event_feed.MAX_WAITING
    feed = EventFeed()
    with feed.listen() as listener:
        for number in range(kept + 3):
            feed.emit(event(number))
        await anyio.sleep(0)
        assert await listener.next() == (3, event(3))
        assert await listener.next() == (0, event(4))
        for number in range(kept - 2):
            assert await listener.next() == (0, event(5 + number))
        with anyio.move_on_after(0.01) as waited:
            await listener.next()
        assert waited.cancelled_caught


async def test_event_of_another_thread_wakes_a_listener() -> None:
    """Adapters may have threads."""
    feed = EventFeed()
    with feed.listen() as listener, anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, feed.emit, event(1))
            assert await listener.next() == (0, event(1))
