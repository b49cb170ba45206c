"""Telling what happened to servers."""

from __future__ import annotations

from gglib.domain.events import (
    ContextReduced,
    ServerAdopted,
    ServerFailed,
    ServerReady,
    ServerStarted,
    ServerStopped,
)
from gglib.domain.handle import ProcessHandle
from gglib.domain.model import Model
from gglib.domain.ownership import ServerRecord
from gglib.ports.clock import Clock
from gglib.ports.event_sink import EventSink

__all__ = ["ServerReports"]


class ServerReports:
    """Turns what happened to a server on record into events. Times in seconds."""

    __slots__ = ("_clock", "_events")

    def __init__(self, *, clock: Clock, events: EventSink) -> None:
        self._clock = clock
        self._events = events

    def context_reduced(self, model: Model, context_size: int) -> None:
        """Tell that it is started with less context than its model has, for want of memory."""
        self._events.emit(
            ContextReduced(
                at=self._clock.now(),
                model_name=model.name,
                context_size=context_size,
                full_context_size=model.facts.context_length,
            )
        )

    def started(self, record: ServerRecord, handle: ProcessHandle) -> None:
        """Tell that its process exists."""
        self._events.emit(
            ServerStarted(
                at=self._clock.now(),
                server_id=record.server_id,
                model_name=record.config.model_name,
                pid=handle.pid,
                port=handle.port,
            )
        )

    def ready(self, record: ServerRecord, load_s: float) -> None:
        """Tell that it answers."""
        self._events.emit(
            ServerReady(
                at=self._clock.now(),
                server_id=record.server_id,
                model_name=record.config.model_name,
                load_s=load_s,
            )
        )

    def adopted(self, record: ServerRecord, handle: ProcessHandle) -> None:
        """Tell that it was ready already."""
        self._events.emit(
            ServerAdopted(
                at=self._clock.now(),
                server_id=record.server_id,
                model_name=record.config.model_name,
                pid=handle.pid,
            )
        )

    def stopped(self, record: ServerRecord, stop_s: float) -> None:
        """Tell that it was asked to end, and has."""
        self._events.emit(
            ServerStopped(
                at=self._clock.now(),
                server_id=record.server_id,
                model_name=record.config.model_name,
                stop_s=stop_s,
            )
        )

    def failed(self, record: ServerRecord, reason: object) -> None:
        """Tell that it ended, or goes on, against its owner's wish."""
        self._events.emit(
            ServerFailed(
                at=self._clock.now(),
                server_id=record.server_id,
                model_name=record.config.model_name,
                reason=str(reason),
            )
        )
