"""Waiting for a server: whether it answers, ends, or takes too long, whichever is first."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum

import anyio
import attrs

from gglib.domain.handle import ProcessHandle
from gglib.errors import NotRunning
from gglib.ports.clock import Clock
from gglib.ports.process_runner import ProcessRunner

__all__ = ["Outcome", "OutcomeKind", "last_lines", "port_was_lost", "until_settled"]

#: Polling a model of seconds costs little and saves up to the interval on every start.
_FIRST_INTERVAL_S = 0.005
_FIRST_PHASE_S = 5.0
_LATER_INTERVAL_S = 0.1

_LOG_LINES = 20

#: How engines say it. Source: strerror(EADDRINUSE), asyncio, and llama-server, build 11434.
_BIND_FAILED = re.compile(
    r"address already in use|EADDRINUSE|errno 98|couldn'?t bind|(cannot|failed to) bind", re.I
)


class OutcomeKind(StrEnum):
    """How a start ended."""

    READY = "ready"
    EXITED = "exited"
    TIMEOUT = "timeout"
    PORT_HELD = "port_held"
    """Somebody else answers on its port."""
    UNTRUSTED = "untrusted"
    """It answers, with a certificate that is not trusted."""


@attrs.frozen(kw_only=True)
class Outcome:
    """How a start ended, and what is known of it."""

    kind: OutcomeKind
    exit_status: int | None = None
    port_held_by: str | None = None
    reason: str | None = None


async def until_settled(
    runner: ProcessRunner,
    handle: ProcessHandle,
    *,
    clock: Clock,
    timeout_s: float,
    waits_for_machine: bool = True,
) -> Outcome:
    """Return when the server of ``handle`` is ready, has ended, or ``timeout_s`` have passed.

    The process is watched while its health is polled: a death is noticed at once, also during
    a health check that hangs.

    Raises:
        NodeUnreachable: there is no way to it any more, and that is not ``waits_for_machine``.
    """
    outcome: Outcome | None = None
    failure: Exception | None = None

    async with anyio.create_task_group() as racers:

        async def race(runner_up: Callable[[], Awaitable[Outcome]]) -> None:
            nonlocal outcome, failure
            try:
                found = await runner_up()
            except Exception as error:
                # Kept, and raised below as itself: a task group would wrap it.
                failure = failure or error
            else:
                outcome = outcome or found
            racers.cancel_scope.cancel()

        async def exited() -> Outcome:
            return Outcome(kind=OutcomeKind.EXITED, exit_status=await runner.wait(handle))

        async def out_of_time() -> Outcome:
            await clock.sleep(timeout_s)
            return Outcome(kind=OutcomeKind.TIMEOUT)

        racers.start_soon(race, exited)
        racers.start_soon(race, lambda: _until_healthy(runner, handle, clock, waits_for_machine))
        racers.start_soon(race, out_of_time)

    if outcome is not None:
        return outcome
    assert failure is not None
    raise failure


async def _until_healthy(
    runner: ProcessRunner, handle: ProcessHandle, clock: Clock, waits_for_machine: bool
) -> Outcome:
    began = clock.monotonic()
    while True:
        try:
            health = await runner.health(handle)
        except NotRunning:
            return Outcome(kind=OutcomeKind.EXITED, exit_status=await runner.wait(handle))
        if health.healthy:
            return Outcome(kind=OutcomeKind.READY)
        if health.port_held_by is not None:
            return Outcome(kind=OutcomeKind.PORT_HELD, port_held_by=health.port_held_by)
        if health.is_untrusted:
            return Outcome(kind=OutcomeKind.UNTRUSTED, reason=health.message)
        if health.is_out_of_reach and not waits_for_machine:
            away = await runner.way_to(handle)
            if away is not None:
                raise away
        early = clock.monotonic() - began < _FIRST_PHASE_S
        await clock.sleep(_FIRST_INTERVAL_S if early else _LATER_INTERVAL_S)


async def last_lines(runner: ProcessRunner, handle: ProcessHandle) -> tuple[str, ...]:
    """Return the last lines of the server's output."""
    return tuple([line async for line in runner.logs(handle, tail=_LOG_LINES)])


async def port_was_lost(runner: ProcessRunner, handle: ProcessHandle, lines: Sequence[str]) -> bool:
    """Return whether a server that has ended did so because somebody else took its port."""
    if any(_BIND_FAILED.search(line) for line in lines):
        return True
    return await runner.port_is_taken(handle)
