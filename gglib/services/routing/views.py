"""Residents and waiters, as they are shown."""

from __future__ import annotations

import attrs

from gglib.domain.model import Model
from gglib.services.routing.state import Closing, ResidentPhase
from gglib.services.serving import RunningServer

__all__ = ["QueuedView", "ResidentView"]


@attrs.frozen(kw_only=True)
class ResidentView:
    """One server, as ``ps`` and ``/running`` show it."""

    model: Model
    phase: ResidentPhase
    in_flight: int
    queued: int
    """How many wait for its model, whichever server will take them."""
    server: RunningServer | None
    pinned: bool = False
    closing: Closing | None = None
    """Why it takes no more requests."""
    ttl_left_s: float | None = None
    """Until it is unloaded for idleness, if nobody uses it."""


@attrs.frozen(kw_only=True)
class QueuedView:
    """One request that waits."""

    position: int
    """How many stand before it."""
    model: Model
    priority: int
    waited_s: float
