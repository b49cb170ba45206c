"""What the next start does with the servers it finds."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from gglib.domain.config import ServerConfig
from gglib.domain.ownership import (
    Asker,
    Found,
    Owner,
    OwnerKind,
    ServerRecord,
    Verdict,
    verdict_for,
)
from gglib.domain.state import ServerState

LEAVE, STOP, FORGET, ADOPT = Verdict.LEAVE, Verdict.STOP, Verdict.FORGET, Verdict.ADOPT
SAME, DISPUTED, REMAINS, NOTHING = Found.SAME, Found.DISPUTED, Found.REMAINS, Found.NOTHING
OTHER, ADOPTS, STOPS = Asker.OTHER, Asker.ADOPTING_GATEWAY, Asker.STOPPING_GATEWAY
ANY = tuple(ServerState)
NOT_READY = tuple(state for state in ServerState if state is not ServerState.READY)
NOT_STARTING = tuple(state for state in ServerState if state is not ServerState.STARTING)

# owner, owner alive, what is found, states -> verdict
TABLE: list[tuple[str, bool, Found, tuple[ServerState, ...], Verdict]] = [
    ("gateway", True, SAME, ANY, LEAVE),
    ("gateway", True, DISPUTED, ANY, LEAVE),
    ("gateway", True, REMAINS, ANY, LEAVE),
    ("gateway", True, NOTHING, ANY, LEAVE),
    ("gateway", False, SAME, NOT_READY, STOP),
    ("gateway", False, DISPUTED, ANY, LEAVE),
    ("gateway", False, REMAINS, ANY, STOP),
    ("gateway", False, NOTHING, ANY, FORGET),
    ("library", True, SAME, ANY, LEAVE),
    ("library", True, DISPUTED, ANY, LEAVE),
    ("library", True, REMAINS, ANY, LEAVE),
    ("library", True, NOTHING, ANY, LEAVE),
    ("library", False, SAME, ANY, STOP),
    ("library", False, DISPUTED, ANY, LEAVE),
    ("library", False, REMAINS, ANY, STOP),
    ("library", False, NOTHING, ANY, FORGET),
    ("standalone", True, SAME, ANY, LEAVE),
    ("standalone", True, DISPUTED, ANY, LEAVE),
    ("standalone", True, REMAINS, (ServerState.STARTING,), LEAVE),
    ("standalone", True, REMAINS, NOT_STARTING, STOP),
    ("standalone", True, NOTHING, (ServerState.STARTING,), LEAVE),
    ("standalone", True, NOTHING, NOT_STARTING, FORGET),
    ("standalone", False, SAME, NOT_READY, STOP),
    ("standalone", False, DISPUTED, ANY, LEAVE),
    ("standalone", False, REMAINS, ANY, STOP),
    ("standalone", False, NOTHING, ANY, FORGET),
]
# What may be taken over, by who asks.
READY_TABLE: list[tuple[str, bool, Asker, Verdict]] = [
    ("gateway", False, OTHER, LEAVE),
    ("gateway", False, ADOPTS, ADOPT),
    ("gateway", False, STOPS, STOP),
    ("standalone", False, OTHER, LEAVE),
    ("standalone", False, ADOPTS, ADOPT),
    ("standalone", False, STOPS, LEAVE),
    ("standalone", True, OTHER, LEAVE),
    ("standalone", True, ADOPTS, ADOPT),
    ("standalone", True, STOPS, LEAVE),
]
ROWS = {
    (OwnerKind(kind), owner, found, state, asker): verdict
    for kind, owner, found, states, verdict in TABLE
    for state in states
    for asker in Asker
} | {
    (OwnerKind(kind), owner, SAME, ServerState.READY, asker): verdict
    for kind, owner, asker, verdict in READY_TABLE
}


def record(kind: OwnerKind, state: ServerState) -> ServerRecord:
    """Return a registry row."""
    return ServerRecord(
        server_id="s",
        owner=Owner(kind=kind, pid=1, process_started_at=1.0, node="n"),
        config=ServerConfig(model_id=1, model_name="m", model_path=Path("/m")),
        engine="e",
        runner="local",
        state=state,
        created_at=1.0,
    )


@pytest.mark.parametrize(
    ("kind", "owner_alive", "found", "state", "asker"),
    list(itertools.product(OwnerKind, (True, False), Found, ServerState, Asker)),
)
def test_verdict_is_that_of_the_table(
    kind: OwnerKind, owner_alive: bool, found: Found, state: ServerState, asker: Asker
) -> None:
    """Every combination of owner, its life, what is found, state and asker has one verdict."""
    verdict = verdict_for(record(kind, state), owner_alive=owner_alive, found=found, asker=asker)
    assert verdict is ROWS[kind, owner_alive, found, state, asker]
