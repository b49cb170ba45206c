"""Whose a server is, and what to do with one that is found."""

from __future__ import annotations

from enum import StrEnum

import attrs

from gglib.domain.config import ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.domain.state import ServerState

__all__ = ["Asker", "Owner", "OwnerKind", "ServerRecord", "Verdict", "verdict_for"]


class OwnerKind(StrEnum):
    """Who asked for a server."""

    GATEWAY = "gateway"
    STANDALONE = "standalone"
    """``gglib start`` without a gateway: meant to outlive the command."""
    LIBRARY = "library"


@attrs.frozen(kw_only=True)
class Owner:
    """The process that asked for a server. Identity as for servers: never the pid alone."""

    kind: OwnerKind
    pid: int
    process_started_at: float
    node: str


@attrs.frozen(kw_only=True)
class ServerRecord:
    """One row of the registry. Written as an intent, without a handle, *before* the spawn."""

    server_id: str
    owner: Owner
    config: ServerConfig
    engine: str
    runner: str
    state: ServerState
    created_at: float
    handle: ProcessHandle | None = None
    api_key: str | None = attrs.field(default=None, repr=False)
    keep_alive: bool = False
    """Whether a clean exit of its owner leaves it running."""


class Verdict(StrEnum):
    """What the next start does with a row it finds."""

    LEAVE = "leave"
    """Somebody's who is alive, or meant to run on."""
    STOP = "stop"
    """Ours by identity, and its owner is gone."""
    ADOPT = "adopt"
    """Ready, and the asking gateway's from now on, if it is healthy."""
    FORGET = "forget"
    """No process of ours answers to it: the row goes, nothing else is touched."""


class Asker(StrEnum):
    """Who looks at what is on record, and what it does with ready servers that it may take over."""

    OTHER = "other"
    """A library or a command: it takes over nothing."""
    ADOPTING_GATEWAY = "adopting_gateway"
    STOPPING_GATEWAY = "stopping_gateway"
    """A gateway that was told to begin with nothing."""


#: What is done with a ready server of a gateway that is gone.
_ORPHANED = {
    Asker.OTHER: Verdict.LEAVE,
    Asker.ADOPTING_GATEWAY: Verdict.ADOPT,
    Asker.STOPPING_GATEWAY: Verdict.STOP,
}


def verdict_for(
    record: ServerRecord, *, owner_alive: bool, process_alive: bool, asker: Asker = Asker.OTHER
) -> Verdict:
    """Return what to do with ``record``.

    ``process_alive``: a process with this row's identity (node, pid, start time and server
    id) runs. A process that merely has the pid does not count, so a stranger is never touched.
    """
    if owner_alive and record.owner.kind is not OwnerKind.STANDALONE:
        return Verdict.LEAVE
    if not process_alive:
        # A standalone start in progress has written its intent and not spawned yet.
        starting = record.state is ServerState.STARTING and owner_alive
        return Verdict.LEAVE if starting else Verdict.FORGET
    ready = record.state is ServerState.READY
    match record.owner.kind:
        case OwnerKind.STANDALONE if ready and asker is Asker.ADOPTING_GATEWAY:
            return Verdict.ADOPT
        case OwnerKind.STANDALONE if ready or owner_alive:
            return Verdict.LEAVE
        case OwnerKind.GATEWAY if ready:
            return _ORPHANED[asker]
        case _:
            return Verdict.STOP
