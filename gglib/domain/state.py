"""The life of a server, as data."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from gglib.errors import InvalidValue

__all__ = ["TRANSITIONS", "ServerState", "check_transition"]


class ServerState(StrEnum):
    """Where a server is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether nothing follows."""
        return not TRANSITIONS[self]


#: Every legal step. A draining server becomes ready again when its eviction is called off.
TRANSITIONS: Mapping[ServerState, frozenset[ServerState]] = MappingProxyType(
    {
        ServerState.STARTING: frozenset(
            {ServerState.READY, ServerState.STOPPING, ServerState.FAILED}
        ),
        ServerState.READY: frozenset(
            {ServerState.DRAINING, ServerState.STOPPING, ServerState.FAILED}
        ),
        ServerState.DRAINING: frozenset(
            {ServerState.READY, ServerState.STOPPING, ServerState.FAILED}
        ),
        ServerState.STOPPING: frozenset({ServerState.STOPPED, ServerState.FAILED}),
        ServerState.STOPPED: frozenset(),
        ServerState.FAILED: frozenset(),
    }
)


def check_transition(before: ServerState, after: ServerState) -> ServerState:
    """Return ``after`` if it may follow ``before``, else raise ``InvalidValue``."""
    if after not in TRANSITIONS[before]:
        legal = ", ".join(sorted(TRANSITIONS[before])) or "nothing"
        raise InvalidValue("state", str(after), f"{legal} (after {before})")
    return after
