"""What the next start does with the servers it finds."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from gglib.domain.config import ServerConfig
from gglib.domain.ownership import Asker, Owner, OwnerKind, ServerRecord, Verdict, verdict_for
from gglib.domain.state import ServerState

LEAVE, STOP, FORGET, ADOPT = Verdict.LEAVE, Verdict.STOP, Verdict.FORGET, Verdict.ADOPT
OTHER, ADOPTS, STOPS = Asker.OTHER, Asker.ADOPTING_GATEWAY, Asker.STOPPING_GATEWAY
ANY = tuple(ServerState)
NOT_READY = tuple(state for state in ServerState if state is not ServerState.READY)
NOT_STARTING = tuple(state for state in ServerState if state is not ServerState.STARTING)

# owner, owner alive, process alive, states -> verdict
TABLE: list[tuple[str, bool, bool, tuple[ServerState, ...], Verdict]] = [
    ("gateway", True, True, ANY, LEAVE),
    ("gateway", True, False, ANY, LEAVE),
    ("gateway", False, True, NOT_READY, STOP),
    ("gateway", False, False, ANY, FORGET),
    ("library", True, True, ANY, LEAVE),
    ("library", True, False, ANY, LEAVE),
    ("library", False, True, ANY, STOP),
    ("library", False, False, ANY, FORGET),
    ("standalone", True, True, ANY, LEAVE),
    ("standalone", True, False, (ServerState.STARTING,), LEAVE),
    ("standalone", True, False, NOT_STARTING, FORGET),
    ("standalone", False, True, NOT_READY, STOP),
    ("standalone", False, False, ANY, FORGET),
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
    (OwnerKind(kind), owner, process, state, asker): verdict
    for kind, owner, process, states, verdict in TABLE
    for state in states
    for asker in Asker
} | {
    (OwnerKind(kind), owner, True, ServerState.READY, asker): verdict
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
    ("kind", "owner_alive", "process_alive", "state", "asker"),
    list(itertools.product(OwnerKind, (True, False), (True, False), ServerState, Asker)),
)
def test_verdict_is_that_of_the_table(
    kind: OwnerKind, owner_alive: bool, process_alive: bool, state: ServerState, asker: Asker
) -> None:
    """Every combination of owner, lives, state and asker has one verdict."""
    found = verdict_for(
        record(kind, state), owner_alive=owner_alive, process_alive=process_alive, asker=asker
    )
    assert found is ROWS[kind, owner_alive, process_alive, state, asker]
