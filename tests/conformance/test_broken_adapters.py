"""A broken promise is found, by the test that is named for it, and by no other."""

from __future__ import annotations

from pathlib import Path

from support.kit_runs import failures, run_kit

BROKEN = Path(__file__).parent / "broken_adapters.py"

FOUND_BY = {
    "TestForgetsIds": {
        "test_removed_model_keeps_its_id_when_it_is_added_again",
        "test_name_of_a_removed_model_has_its_id_still",
    },
    "TestSortsLikePeople": {"test_models_are_listed_by_name"},
    "TestUpdatesInTwoSteps": {"test_cancelled_update_is_done_whole_or_not_at_all"},
    "TestEditsInTwoSteps": {"test_edits_that_meet_are_all_kept"},
    "TestRemovesUnseen": {"test_every_change_moves_the_revision"},
    "TestRoundsTimes": {
        "test_added_model_comes_back_whole",
        "test_any_model_comes_back_whole",
    },
    "TestComplains": {"test_whole_catalog_has_no_damage"},
    "TestKeepsHandles": {"test_put_again_replaces_every_field"},
    "TestSortsBySeconds": {"test_records_are_listed_oldest_first"},
    "TestRemovesOnce": {
        "test_unknown_server_has_no_record",
        "test_removed_record_is_gone_and_may_be_removed_again",
        "test_cancelled_remove_is_done_whole_or_not_at_all",
    },
    "TestQueuesTwice": {"test_same_pull_asked_for_at_once_is_one"},
    "TestReadsThenWrites": {"test_edits_at_once_lose_nothing"},
    "TestFetchesForEver": {"test_one_fetches_at_a_time"},
    "TestSoundEngine": set(),
    "TestDropsThreads": {"test_intent_is_expressed_or_refused"},
    "TestTellsItsKey": {"test_no_secret_is_in_the_command"},
    "TestPutsExtraFirst": {"test_extra_arguments_come_last_as_they_are"},
    "TestSharesItsLists": {"test_command_is_pure"},
    "TestRaisesItsOwn": {
        "test_missing_model_is_reported",
        "test_strange_reference_is_an_error_of_the_port",
    },
    "TestCountsOneShard": {"test_sharded_model_is_located_whole"},
    "TestNeverPauses": {"test_sleep_is_a_cancellation_point"},
    "TestStepsBack": {"test_monotonic_never_goes_back"},
    "TestFailsWithFailures": {
        "test_every_event_is_taken",
        "test_strange_values_raise_nothing",
        "test_events_come_from_any_thread",
    },
    "TestWantsTheMainThread": {"test_events_come_from_any_thread"},
    "TestWaitsForItsDisk": {"test_event_loop_is_not_held_up"},
    "TestLooksAtPidsOnly": {"test_other_process_with_the_same_pid_is_not_meant"},
    "TestTakesZombiesForAlive": {"test_child_is_alive_until_it_dies"},
    "TestAddsUpProcesses": {"test_file_that_two_processes_have_mapped_counts_once"},
    "TestForgetsChildren": {"test_memory_of_descendants_counts"},
    "TestDividesSharedPages": {"test_file_that_strangers_have_mapped_counts_in_full"},
    "TestSoundInventory": set(),
    "TestTellsMebibytes": {"test_sizes_are_bytes"},
    "TestPutsGpusFirst": {"test_the_machines_own_memory_comes_first"},
    "TestCallsAllGpusAlike": {"test_device_names_differ"},
    "TestCountsSurveys": {
        "test_device_keeps_its_name",
        "test_cancelled_survey_does_no_harm",
    },
    "TestWaitsForItsDriver": {"test_event_loop_is_not_held_up"},
    "TestBreaksWhenCancelled": {"test_cancelled_survey_does_no_harm"},
}


def test_broken_promise_fails_the_test_that_is_named_for_it(tmp_path: Path) -> None:
    """Each adapter breaks one promise; every other test of its contract passes."""
    assert failures(run_kit(tmp_path, BROKEN.read_text())) == FOUND_BY
