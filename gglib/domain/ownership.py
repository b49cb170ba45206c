"""Whose a server is, and what to do with one that is found."""

from __future__ import annotations

from enum import StrEnum

import attrs

from gglib.domain.config import ServerConfig
from gglib.domain.handle import ProcessHandle
from gglib.domain.state import ServerState

__all__ = ["Asker", "Found", "Owner", "OwnerKind", "ServerRecord", "Verdict", "verdict_for"]


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
    """Somebody's who is alive, or meant to run on, or not surely the one on record."""
    STOP = "stop"
    """Ours by identity, and its owner is gone."""
    ADOPT = "adopt"
    """Ready, and the asking gateway's from now on, if it is healthy."""
    FORGET = "forget"
    """No process of ours answers to it: the row goes, nothing else is touched."""


class Found(StrEnum):
    """What runs of a server on record. Identity is node, pid, start time and server id."""

    SAME = "same"
    """The process on record, or the bearer of its server id where no process is on record."""
    DISPUTED = "disputed"
    """A process with its pid and server id that began at another time than is on record.

    Either the record is wrong, or the machine's clock was set.
    """
    REMAINS = "remains"
    """Its process is dead; something that it started, and that bears its server id, is not."""
    NOTHING = "nothing"
    """Nobody bears its server id. Its pid may be a stranger's by now."""


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
    record: ServerRecord, *, owner_alive: bool, found: Found, asker: Asker = Asker.OTHER
) -> Verdict:
    """Return what to do with ``record``, of which ``found`` runs.

    A process that merely has the pid is nothing of it, so a stranger is never touched. One that
    is disputed is nobody's to take over or to stop but a person's: its row stays, and shows it.
    """
    has_owner = owner_alive and record.owner.kind is not OwnerKind.STANDALONE
    if has_owner or found is Found.DISPUTED:
        return Verdict.LEAVE
    if found is Found.SAME:
        return _of_a_running_one(record, owner_alive=owner_alive, asker=asker)
    # A standalone start in progress has written its intent and not spawned yet.
    if record.state is ServerState.STARTING and owner_alive:
        return Verdict.LEAVE
    return Verdict.STOP if found is Found.REMAINS else Verdict.FORGET


def _of_a_running_one(record: ServerRecord, *, owner_alive: bool, asker: Asker) -> Verdict:
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
