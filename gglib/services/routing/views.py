"""Residents and waiters, as they are shown."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from gglib.domain.device import CPU
from gglib.domain.model import Model
from gglib.services.routing.state import Closing, ResidentPhase
from gglib.services.serving import RunningServer

__all__ = ["Eviction", "QueuedView", "ResidentView", "main_device"]


@attrs.frozen(kw_only=True)
class ResidentView:
    """One server, as ``ps`` and ``/running`` show it."""

    model: Model
    phase: ResidentPhase
    in_flight: int
    queued: int
    """How many wait for its model, whichever server will take them."""
    server: RunningServer | None
    runner: str | None = None
    """Where it runs."""
    pinned: bool = False
    closing: Closing | None = None
    """Why it takes no more requests."""
    ttl_s: float | None = None
    """How long it may idle; ``None`` = for ever."""
    ttl_left_s: float | None = None
    """Until it is unloaded for idleness, if nobody uses it."""
    requests: int = 0
    """How many it was given."""
    memory: Mapping[str, int] = attrs.field(factory=dict, hash=False)
    """What it is held to need, in bytes by device."""
    memory_observed_bytes: int | None = None
    """The most of the machine's own memory that it was seen to have."""

    @property
    def device(self) -> str:
        """Where most of it is."""
        return main_device(self.memory)


@attrs.frozen(kw_only=True)
class Eviction:
    """A server that was ready, and is gone."""

    model: Model
    device: str
    """Where most of it was."""
    reason: str
    """A ``Closing``, or ``died``."""
    server_id: str


def main_device(memory: Mapping[str, int]) -> str:
    """Return the device that has most of it; the machine's own memory if nothing is known."""
    return max(memory, key=lambda name: memory[name], default=CPU)


@attrs.frozen(kw_only=True)
class QueuedView:
    """One request that waits."""

    position: int
    """How many stand before it."""
    model: Model
    priority: int
    waited_s: float
