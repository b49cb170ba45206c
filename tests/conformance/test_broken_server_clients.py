"""A broken promise of a client of servers is found, by the test that is named for it."""

from __future__ import annotations

from pathlib import Path

from support.kit_runs import failures, run_kit

BROKEN = Path(__file__).parent / "broken_server_clients.py"

FOUND_BY = {
    "TestSoundServerClient": set(),
    "TestKnowsPortsOnly": {"test_server_behind_a_unix_socket_is_asked"},
    "TestFollowsRedirects": {"test_redirect_is_not_followed"},
    "TestAsksTheProxy": {"test_proxy_of_the_user_is_not_asked"},
    "TestTimesEachRead": {"test_slow_servers_are_given_up"},
    "TestReadsToTheEnd": {"test_endless_answer_is_cut"},
    "TestTakesRefusals": {"test_strange_answer_tells_nothing"},
    "TestTakesTheirWord": {"test_what_is_not_told_is_unknown"},
    "TestAllOrNothing": {"test_what_is_not_told_is_unknown"},
    "TestOneAfterTheOther": {"test_server_that_hangs_delays_no_other"},
}


def test_broken_promise_fails_the_test_that_is_named_for_it(tmp_path: Path) -> None:
    """Each client breaks one promise; every other test of the contract passes."""
    assert failures(run_kit(tmp_path, BROKEN.read_text())) == FOUND_BY
