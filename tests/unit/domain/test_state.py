"""The life of a server, every step of it."""

from __future__ import annotations

import itertools

import pytest

from gglib.domain.state import TRANSITIONS, ServerState, check_transition
from gglib.errors import InvalidValue

LEGAL = {
    ("starting", "ready"),
    ("starting", "stopping"),
    ("starting", "failed"),
    ("ready", "draining"),
    ("ready", "stopping"),
    ("ready", "failed"),
    ("draining", "ready"),
    ("draining", "stopping"),
    ("draining", "failed"),
    ("stopping", "stopped"),
    ("stopping", "failed"),
}


@pytest.mark.parametrize(
    ("before", "after"), list(itertools.product(ServerState, ServerState)), ids=str
)
def test_step_is_taken_only_if_it_is_legal(before: ServerState, after: ServerState) -> None:
    """Every pair of states is either in the table or an error that names what is legal."""
    if (before.value, after.value) in LEGAL:
        assert check_transition(before, after) is after
    else:
        with pytest.raises(InvalidValue, match=rf"state is '{after}'; .* \(after {before}\)"):
            check_transition(before, after)


@pytest.mark.parametrize("state", ServerState)
def test_final_states_are_those_that_nothing_follows(state: ServerState) -> None:
    """Stopped and failed servers stay so."""
    assert state.is_final == (state.value in {"stopped", "failed"})


def test_every_state_leads_to_an_end() -> None:
    """From anywhere a server can be stopped, or fail."""
    for state in ServerState:
        reached = {state}
        while True:
            more = reached.union(*(TRANSITIONS[step] for step in reached))
            if more == reached:
                break
            reached = more
        assert any(step.is_final for step in reached)
