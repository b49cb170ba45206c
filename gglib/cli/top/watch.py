"""Looks at the gateway of a data directory, again and again, whether it is there or not."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup

from gglib.cli.gateway_client import GatewayClient, find_gateway, require_gateway
from gglib.cli.top.rates import RecentCounters
from gglib.cli.top.snapshot import GatewaySeen, Snapshot, absence, snapshot_of
from gglib.errors import GatewayNotRunning, GglibError

if TYPE_CHECKING:
    from gglib.gateway.presence import Presence

__all__ = ["Watch", "open_watch"]

#: How long the gateway may take for one answer before it is said not to answer.
_SILENCE_TIMEOUT_S = 5.0
#: How many events may be between two looks; of more, the newest.
_MAX_EVENTS = 256
#: Not what a view of servers is for: a line for each request.
_NOT_TOLD = "request.finished"


class Watch:
    """Sees a gateway, loses it, and finds the next one. Not for several tasks at once."""

    def __init__(self, data_dir: Path, presence: Presence, tasks: TaskGroup) -> None:
        self._data_dir = data_dir
        self._tasks = tasks
        self._line: _Line | None = self._open(presence)

    async def look(self) -> Snapshot:
        """Return what is seen now; of a gateway that cannot be seen, why."""
        try:
            return await self.see()
        except GglibError as error:
            there = None if self._line is None else _seen(self._line.presence)
            return absence(time.time(), str(error), there)

    async def see(self) -> Snapshot:
        """Return what is seen now.

        Raises:
            GatewayNotRunning: there is no gateway any more.
            GatewayUnreachable: it does not answer.
        """
        while True:
            line = self._line
            failure: GglibError | None = None
            if line is not None:
                try:
                    return await line.look()
                except GglibError as error:
                    failure = error
            presence = find_gateway(self._data_dir)
            if line is not None and failure is not None and presence == line.presence:
                raise failure
            await self.close()
            if presence is None:
                raise GatewayNotRunning(self._data_dir)
            # Another one by now, or the first since.
            self._line = self._open(presence)

    def _open(self, presence: Presence) -> _Line:
        line = _Line(presence)
        self._tasks.start_soon(line.listen)
        return line

    async def close(self) -> None:
        """Look no more at the gateway of now."""
        line, self._line = self._line, None
        if line is not None:
            await line.close()


class _Line:
    """One gateway's, for as long as it is the same."""

    def __init__(self, presence: Presence) -> None:
        self.presence = presence
        self._client = GatewayClient(presence, silence_timeout_s=_SILENCE_TIMEOUT_S)
        self._counters = RecentCounters()
        self._events: deque[dict[str, Any]] = deque(maxlen=_MAX_EVENTS)
        self._listening = anyio.CancelScope()

    async def look(self) -> Snapshot:
        client = self._client
        running = await client.running()
        queue = await client.queue()
        pool = await client.pool()
        rates = self._counters.take(time.monotonic(), await client.metrics())
        events = list(self._events)
        self._events.clear()
        return snapshot_of(
            at=time.time(),
            gateway=_seen(self.presence),
            running=running,
            queue=queue,
            pool=pool,
            rates=rates,
            events=events,
        )

    async def listen(self) -> None:
        """Note what happens, until the line is closed; looks tell when it is broken."""
        with self._listening:
            while True:
                with suppress(GglibError):
                    async with aclosing(self._client.events()) as events:
                        async for name, fields in events:
                            if name != _NOT_TOLD:
                                self._events.append({"event": name, **fields})
                await anyio.sleep(1.0)

    async def close(self) -> None:
        self._listening.cancel()
        await self._client.__aexit__(None, None, None)


def _seen(presence: Presence) -> GatewaySeen:
    return GatewaySeen(
        address=presence.address,
        pid=presence.pid,
        version=presence.version,
        started_at=presence.started_at,
    )


@asynccontextmanager
async def open_watch(data_dir: Path) -> AsyncIterator[Watch]:
    """Watch the gateway of ``data_dir`` for the block.

    Raises:
        GatewayNotRunning: there is none now.
    """
    presence = require_gateway(data_dir)
    async with anyio.create_task_group() as tasks:
        watch = Watch(data_dir, presence, tasks)
        try:
            yield watch
        finally:
            with anyio.CancelScope(shield=True):
                await watch.close()
            tasks.cancel_scope.cancel()
