"""A broken promise is found by the test that is named for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.kit_runs import Outcomes, failures, run_kit

BROKEN = Path(__file__).parent / "broken_runners.py"
THIRD_PARTY = Path(__file__).parents[1] / "third_party" / "gglib-nice-runner"

#: The test that each is found by, and those that cannot pass without what it broke.
FOUND_BY: dict[str, tuple[str, set[str]]] = {
    "TestForgetsItsName": (
        "test_started_server_is_who_its_configuration_says",
        {
            "test_cancelled_start_leaves_nothing",
            "test_dead_servers_are_not_listed",
            "test_next_opening_finds_and_stops_what_was_left",
            "test_other_servers_run_on",
            "test_port_of_another_server_is_refused",
            "test_running_servers_are_listed_oldest_first",
            "test_server_that_is_being_stopped_runs_until_it_is_dead",
        },
    ),
    "TestInventsIdentities": (
        "test_started_server_is_who_its_configuration_says",
        {"test_same_identity_may_be_used_again_after_the_end"},
    ),
    "TestTakesAnyPort": (
        "test_port_that_is_asked_for_is_used",
        {"test_port_of_another_server_is_refused"},
    ),
    "TestIgnoresBasePort": ("test_base_port_gives_a_free_port_from_there_on", set()),
    "TestHidesWhosePortItIs": ("test_port_of_another_server_is_refused", set()),
    "TestWaitsUntilReady": (
        "test_start_returns_before_the_server_is_ready",
        {"test_cancelled_start_leaves_nothing", "test_port_of_another_server_is_refused"},
    ),
    "TestLeaksCancelledStarts": ("test_cancelled_start_leaves_nothing", set()),
    "TestRaisesWhateverItMet": ("test_start_that_cannot_be_carried_out_fails", set()),
    "TestRecordsTooLate": ("test_cancelled_start_leaves_nothing", set()),
    "TestDropsTheEnvironment": (
        "test_server_carries_its_environment",
        {"test_server_runs_as_its_engine_says"},
    ),
    "TestOverlooksHealthPath": ("test_server_is_asked_where_and_as_its_engine_says", set()),
    "TestOverlooksHealthStatuses": ("test_server_is_asked_where_and_as_its_engine_says", set()),
    "TestOverlooksEnvironment": ("test_server_runs_as_its_engine_says", set()),
    "TestOverlooksWorkingDirectory": ("test_server_runs_as_its_engine_says", set()),
    "TestPrefersTheEngine": (
        "test_server_runs_as_its_engine_says",
        {"test_server_carries_its_environment"},
    ),
    "TestStopsTwice": ("test_second_stop_raises_not_running", set()),
    "TestFailsTheSecondWhoStops": (
        "test_concurrent_stops_both_return",
        {"test_server_that_is_being_stopped_runs_until_it_is_dead"},
    ),
    "TestStopsTheWholeModel": ("test_other_servers_run_on", set()),
    "TestOnlyAsks": (
        "test_deaf_server_is_killed_after_the_grace",
        {
            "test_cancelled_stop_leaves_the_server_stopped_or_on_its_way",
            "test_server_that_is_being_stopped_runs_until_it_is_dead",
        },
    ),
    "TestKillsAtOnce": ("test_server_is_asked_before_it_is_killed", set()),
    "TestKillsAtOnceUnseen": ("test_server_is_asked_before_it_is_killed", set()),
    "TestMissesOneInTwelve": (
        "test_server_that_has_just_been_started_can_be_stopped",
        set(),
    ),
    "TestLeavesTheSecondWhoStops": (
        "test_server_that_is_being_stopped_runs_until_it_is_dead",
        set(),
    ),
    "TestHidesWhatItStops": ("test_server_that_is_being_stopped_runs_until_it_is_dead", set()),
    "TestRaisesWhileStopping": ("test_server_that_is_being_stopped_runs_until_it_is_dead", set()),
    "TestDisownsWhatItStops": ("test_server_that_is_being_stopped_runs_until_it_is_dead", set()),
    "TestForgetsFamilies": ("test_everything_the_server_started_ends_with_it", set()),
    "TestTrustsThePid": ("test_impostor_is_not_running", set()),
    "TestStopsByPid": ("test_stopping_an_impostor_touches_nothing", set()),
    "TestAsksByPid": ("test_asking_after_an_impostor_raises_not_running", set()),
    "TestWaitsByPid": ("test_waiting_for_an_impostor_returns_at_once", set()),
    "TestReadsByPid": ("test_output_of_an_impostor_is_nothing", set()),
    "TestRaisesWithoutOutput": ("test_output_of_an_impostor_is_nothing", set()),
    "TestHealthyTooSoon": (
        "test_server_that_is_not_ready_is_unhealthy_with_a_message",
        set(),
    ),
    "TestRaisesWhileLoading": (
        "test_server_that_is_not_ready_is_unhealthy_with_a_message",
        set(),
    ),
    "TestNeverTellsWhen": ("test_ready_server_is_healthy", set()),
    "TestBlamesThePort": ("test_port_that_nobody_took_is_not_taken", set()),
    "TestUnhealthyAfterItsEnd": (
        "test_health_of_a_stopped_server_raises_not_running",
        {
            "test_asking_after_an_impostor_raises_not_running",
            "test_health_of_a_server_that_died_raises_not_running",
        },
    ),
    "TestTrustsWhoeverAnswers": ("test_port_that_somebody_else_holds_is_unhealthy", set()),
    "TestListsTheDead": ("test_dead_servers_are_not_listed", set()),
    "TestListsNewestFirst": (
        "test_running_servers_are_listed_oldest_first",
        {"test_other_servers_run_on"},
    ),
    "TestListsEverybodys": (
        "test_servers_of_another_data_directory_are_not_listed",
        {"test_servers_of_another_runner_are_not_listed"},
    ),
    "TestForgetsWhatItLeft": (
        "test_next_opening_finds_and_stops_what_was_left",
        {
            "test_output_of_what_runs_on_is_read_by_the_next_opening",
            "test_running_server_is_adopted_and_a_dead_one_is_not",
        },
    ),
    "TestAdoptsAnything": (
        "test_running_server_is_adopted_and_a_dead_one_is_not",
        {"test_asking_after_an_impostor_raises_not_running"},
    ),
    "TestFindsEveryFile": ("test_file_is_found_where_it_is", set()),
    "TestNamesItsMachineAnew": ("test_machine_is_told_by_one_name", set()),
    "TestTellsOneDeviceTwice": (
        "test_memory_elsewhere_is_told_like_an_inventory_tells_it",
        set(),
    ),
    "TestTellsDevicesNowAndThen": (
        "test_memory_elsewhere_is_told_like_an_inventory_tells_it",
        set(),
    ),
    "TestRemembersMemory": ("test_memory_of_a_server_is_told_while_it_runs", set()),
    "TestSeesMemoryThatIsNotThere": ("test_memory_of_a_server_is_told_while_it_runs", set()),
    "TestNeverStopsWaiting": (
        "test_server_that_dies_while_starting_is_noticed",
        {
            "test_all_who_wait_see_the_stop",
            "test_waiting_for_a_gone_server_returns_at_once",
        },
    ),
    "TestNeverWaits": ("test_all_who_wait_see_the_stop", set()),
    "TestCallsEveryEndClean": (
        "test_server_that_dies_while_starting_is_noticed",
        {
            "test_deaf_server_is_killed_after_the_grace",
            "test_server_is_asked_before_it_is_killed",
        },
    ),
    "TestStopsWhenItsWaiterLeaves": ("test_cancelled_wait_leaves_the_server_running", set()),
    "TestMissesDeaths": ("test_server_that_is_killed_from_outside_is_noticed", set()),
    "TestLosesLastWords": (
        "test_last_words_are_kept_after_the_end",
        {
            "test_outputs_of_two_servers_do_not_mix",
            "test_past_servers_are_the_ended_ones_newest_first",
        },
    ),
    "TestTailsFromTheTop": (
        "test_tail_is_the_last_lines",
        {"test_follower_is_told_what_is_printed_later"},
    ),
    "TestTailsNothingAsAll": (
        "test_tail_is_the_last_lines",
        {"test_follower_is_told_what_is_printed_later"},
    ),
    "TestLosesComplaints": ("test_both_streams_are_kept", set()),
    "TestNeverFollows": ("test_follower_is_told_what_is_printed_later", set()),
    "TestFollowsUntilSilence": ("test_follower_is_told_what_is_printed_later", set()),
    "TestMixesOutputs": (
        "test_outputs_of_two_servers_do_not_mix",
        {"test_output_of_an_impostor_is_nothing"},
    ),
    "TestFollowsForEver": (
        "test_followed_output_ends_with_the_server",
        {"test_follower_is_told_what_is_printed_later"},
    ),
    "TestRemembersOldestFirst": ("test_past_servers_are_the_ended_ones_newest_first", set()),
}


def test_every_broken_runner_is_looked_for() -> None:
    """None is forgotten in the table above."""
    there = set(re.findall(r"^class (Test\w+)", BROKEN.read_text(), re.MULTILINE))
    assert there == {"TestSoundRunner", *FOUND_BY}


@pytest.mark.timeout(120)
def test_broken_promise_fails_the_test_that_is_named_for_it(tmp_path: Path) -> None:
    """Each runner breaks one promise; the sound one beside them passes everything."""
    named = [f"{name}::{promise}" for name, (promise, _) in FOUND_BY.items()]
    found = failures(run_broken(tmp_path, only=["TestSoundRunner", *named]))
    expected = {name: {promise} for name, (promise, _) in FOUND_BY.items()}
    assert found == {"TestSoundRunner": set(), **expected}


@pytest.mark.soak
def test_broken_promise_fails_no_test_but_those_that_rest_on_it(tmp_path: Path) -> None:
    """The whole contract, over every one of them."""
    found = failures(run_broken(tmp_path))
    expected = {name: {promise, *others} for name, (promise, others) in FOUND_BY.items()}
    assert found == {"TestSoundRunner": set(), **expected}


def run_broken(folder: Path, *, only: Sequence[str] = ()) -> Outcomes:
    """Run the contract over the broken runners."""
    source = BROKEN.read_text()
    return run_kit(folder, source, modules=[THIRD_PARTY], only=only, timeout_s=110)
