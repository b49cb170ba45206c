"""Asking a server that is ready about itself."""

from __future__ import annotations

import anyio

from gglib.domain.events import AdapterFailed
from gglib.domain.handle import ProcessHandle
from gglib.domain.server_props import ServerProps
from gglib.ports.clock import Clock
from gglib.ports.engine import Engine
from gglib.ports.event_sink import EventSink
from gglib.ports.server_client import ServerClient

__all__ = ["ServerQuestions"]

#: What a client promises, for one that does not keep it: a start waits no longer.
_PATIENCE_S = 2.0


class ServerQuestions:
    """Asks by a client of servers. Whatever goes wrong, the answer is that nothing is known."""

    __slots__ = ("_client", "_clock", "_events")

    def __init__(self, client: ServerClient, *, clock: Clock, events: EventSink) -> None:
        self._client = client
        self._clock = clock
        self._events = events

    async def props(
        self, engine: Engine, handle: ProcessHandle, api_key: str | None
    ) -> ServerProps:
        """Return what the server tells of itself, if those of ``engine`` can tell."""
        found = ServerProps()
        try:
            if engine.capabilities.slots:
                with anyio.move_on_after(_PATIENCE_S):
                    found = await self._client.props(
                        handle.base_url, api_key, ca_file=handle.ca_file
                    )
        except Exception as error:
            self._events.emit(
                AdapterFailed(
                    at=self._clock.now(),
                    group="gglib.server_clients",
                    adapter_name=type(self._client).__name__,
                    reason=f"{type(error).__name__}: {error}",
                )
            )
        return found
