"""What a runner has without writing it: enough for the services to work."""

from __future__ import annotations

import anyio
import pytest
from support.gateway import model, running_server
from support.lists import ListRunner

from gglib.errors import NotRunning

HANDLE = running_server("id", model(1, "m"), 80).handle


async def test_running_server_is_adopted_and_another_is_not() -> None:
    """Adopting asks only whether it is there."""
    runner = ListRunner(HANDLE)
    await runner.adopt(HANDLE)
    runner.running.clear()
    with pytest.raises(NotRunning):
        await runner.adopt(HANDLE)


async def test_runner_without_output_has_no_lines_and_no_past() -> None:
    """Neither is an error."""
    runner = ListRunner(HANDLE)
    assert [line async for line in runner.logs(HANDLE, tail=3, follow=True)] == []
    assert await runner.past_servers("m") == []


async def test_wait_returns_when_the_server_is_gone() -> None:
    """Its status is not known; for one that is gone already, at once."""
    runner = ListRunner(HANDLE)
    statuses: list[int | None] = []

    async def wait() -> None:
        statuses.append(await runner.wait(HANDLE))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            assert statuses == []
            runner.running.clear()
        await wait()
    assert statuses == [None, None]
