"""What the storage service says about each output, given what the log says already."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.contracts.facts import OutputFailure
from shared.contracts.generation_events import StorageFailed
from shared.contracts.reasons import ReasonCode
from shared.contracts.storage_events import (
    MediaLost,
    MediaStored,
    MigrationAttemptFailed,
    MigrationCompleted,
)
from storage_svc.domain.commands import (
    Command,
    ReleaseQuarantined,
)
from storage_svc.domain.decide import NothingToKeep
from storage_svc.domain.state import Kept, Missing, Stored, fold
from tests.storage_given import ID, an_object, ask, completed, fail, given, lose, sealed, store


def test_the_last_missing_output_completes_the_migration_in_the_same_decision() -> None:
    given(completed(1)).when(store(0)).then(MediaStored, MigrationCompleted)


def test_one_stored_output_of_several_completes_nothing_yet() -> None:
    given(completed(2)).when(store(1)).then(MediaStored)


def test_outputs_stored_at_once_count_as_stored() -> None:
    given(completed(3, at_once=[0, 2])).when(store(1)).then(MediaStored, MigrationCompleted)


def test_only_what_was_migrated_is_counted() -> None:
    decided = (
        given(completed(3, at_once=[0])).when(store(1, size_bytes=7)).when(store(2, size_bytes=5))
    )
    assert decided.new[-1] == MigrationCompleted(file_count=2, total_size_bytes=12)


def test_storing_twice_says_it_once() -> None:
    given(completed(1)).when(store(0)).when(store(0)).then(MediaStored, MigrationCompleted)


def test_storing_what_was_stored_at_once_says_nothing() -> None:
    given(completed(1, at_once=[0])).when(store(0)).then_nothing_happens()


def test_a_failed_attempt_is_visible_as_failed() -> None:
    given(completed(1)).when(fail(0)).then(MigrationAttemptFailed)


def test_the_same_failed_attempt_is_said_once() -> None:
    given(completed(1)).when(fail(0)).when(fail(0)).then(MigrationAttemptFailed)


def test_the_next_failed_attempt_is_said_too() -> None:
    given(completed(1)).when(fail(0, 1)).when(fail(0, 2)).then(
        MigrationAttemptFailed, MigrationAttemptFailed
    )


def test_a_failure_after_success_changes_nothing() -> None:
    given(completed(1)).when(store(0)).when(fail(0, 2)).when(lose(0, 2)).then(
        MediaStored, MigrationCompleted
    )


def test_an_output_is_lost_once() -> None:
    given(completed(1)).when(lose(0)).when(lose(0)).then(MediaLost)


def test_bytes_that_turn_up_after_giving_up_are_kept() -> None:
    given(completed(1)).when(lose(0)).when(store(0, 2)).then(
        MediaLost, MediaStored, MigrationCompleted
    )


def test_a_migration_with_a_lost_output_is_never_completed() -> None:
    given(completed(2)).when(lose(0)).when(store(1)).then(MediaLost, MediaStored)


def test_one_failed_output_never_changes_another() -> None:
    state = fold(
        sealed(event)
        for event in given(completed(3)).when(store(0)).when(fail(1)).when(store(2)).new
    )
    assert not isinstance(state, Kept)  # without the completion there is nothing to keep
    events = (completed(3), *given(completed(3)).when(store(0)).when(fail(1)).when(store(2)).new)
    state = fold(sealed(event) for event in events)
    assert isinstance(state, Kept)
    assert state.outputs[0] == Stored(an_object(0))
    assert state.outputs[2] == Stored(an_object(2))


def test_storage_failed_adds_nothing_that_the_completion_did_not_say() -> None:
    failed = StorageFailed(
        failures=(OutputFailure(index=0, reason=ReasonCode.BUCKET_FULL, detail="507"),)
    )
    given(completed(1), failed).when(store(0)).then(MediaStored, MigrationCompleted)


def test_what_was_given_up_on_and_fails_again_is_recorded_and_waits_like_all_else() -> None:
    again = given(completed(1)).when(lose(0, 1)).when(fail(0, 2))
    again.then(MediaLost, MigrationAttemptFailed)
    output = again.output()
    assert isinstance(output, Missing)
    assert (output.past.attempts, output.past.losses) == (2, 1)


def test_what_a_slower_worker_says_does_not_bring_back_what_was_given_up_on() -> None:
    given(completed(1)).when(lose(0, 2)).when(fail(0, 2)).then(MediaLost)


def test_what_was_given_up_on_may_be_lost_again_under_another_id() -> None:
    twice = given(completed(1)).when(lose(0, 1)).when(lose(0, 2)).when(lose(0, 2))
    twice.then(MediaLost, MediaLost)
    first, second = (sealed(event).id for event in twice.new)
    assert first == f"{ID}:velro.storage.media_lost.v1:0", "as it always was"
    assert second == f"{ID}:velro.storage.media_lost.v1:0-2"


def test_a_long_detail_is_cut_to_what_an_event_takes() -> None:
    command = replace(fail(0), detail="x" * 5000)
    (event,) = given(completed(1)).when(command).new
    assert isinstance(event, MigrationAttemptFailed)
    assert len(event.detail) == 2000


@pytest.mark.parametrize("command", [store(0), fail(0), lose(0), ask(0)])
def test_nothing_is_said_about_a_generation_that_is_not_completed(command: Command) -> None:
    with pytest.raises(NothingToKeep):
        given().when(command)


@pytest.mark.parametrize("command", [store(2), fail(2), lose(2), ask(2), ReleaseQuarantined(2)])
def test_nothing_is_said_about_an_output_that_does_not_exist(command: Command) -> None:
    with pytest.raises(NothingToKeep):
        given(completed(2)).when(command)
