"""What the storage service says about each output, given what the log says already."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given as hypothesis_given
from hypothesis import strategies as st

from shared.contracts.envelope import Context, Envelope, seal
from shared.contracts.events import (
    AnyEvent,
    GenerationCompleted,
    MediaLost,
    MediaStored,
    MigrationAttemptFailed,
    MigrationCompleted,
    Output,
    OutputFailure,
    StorageFailed,
    StoredObject,
)
from shared.contracts.reasons import ReasonCode
from storage_svc.domain.commands import Command, RecordAttemptFailed, RecordLost, RecordStored
from storage_svc.domain.decide import NothingToKeep, decide
from storage_svc.domain.state import Kept, Stored, evolve, fold

if TYPE_CHECKING:
    from collections.abc import Sequence

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ID = "generation-1"


def sealed(event: AnyEvent) -> Envelope:
    return seal(event, generation_id=ID, at=NOON, context=Context(source="test"))


def an_object(index: int, size_bytes: int = 10) -> StoredObject:
    return StoredObject(
        bucket="media",
        key=f"user/{ID}/{index}-0123456789abcdef.png",
        size_bytes=size_bytes,
        sha256="0123456789abcdef" * 4,
        media_type="image/png",
    )


def completed(count: int, *, at_once: Sequence[int] = ()) -> GenerationCompleted:
    return GenerationCompleted(
        user_id="user",
        provider="sandbox",
        model="painter",
        outputs=tuple(
            Output(
                index=index,
                source_url=f"https://media.example/{index}.png",
                expires_at=NOON + timedelta(hours=1),
                stored=an_object(index) if index in at_once else None,
            )
            for index in range(count)
        ),
    )


def store(index: int, attempt: int = 1, size_bytes: int = 10) -> RecordStored:
    return RecordStored(index, attempt, an_object(index, size_bytes), took_s=0.5)


def fail(index: int, attempt: int = 1) -> RecordAttemptFailed:
    return RecordAttemptFailed(
        index, attempt, ReasonCode.BUCKET_UNAVAILABLE, "connection refused", NOON
    )


def lose(index: int, attempt: int = 1) -> RecordLost:
    return RecordLost(index, attempt, ReasonCode.SOURCE_EXPIRED, "410 Gone")


@dataclass(frozen=True)
class Given:
    events: tuple[AnyEvent, ...]
    new: list[AnyEvent] = field(default_factory=list["AnyEvent"])

    def when(self, command: Command) -> Given:
        state = fold(sealed(event) for event in (*self.events, *self.new))
        return replace(self, new=[*self.new, *decide(command, state)])

    def then(self, *types: type[AnyEvent]) -> None:
        assert [type(event) for event in self.new] == list(types)

    def then_nothing_happens(self) -> None:
        self.then()


def given(*events: AnyEvent) -> Given:
    return Given(events)


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


def test_a_long_detail_is_cut_to_what_an_event_takes() -> None:
    command = replace(fail(0), detail="x" * 5000)
    (event,) = given(completed(1)).when(command).new
    assert isinstance(event, MigrationAttemptFailed)
    assert len(event.detail) == 2000


@pytest.mark.parametrize("command", [store(0), fail(0), lose(0)])
def test_nothing_is_said_about_a_generation_that_is_not_completed(command: Command) -> None:
    with pytest.raises(NothingToKeep):
        given().when(command)


@pytest.mark.parametrize("command", [store(2), fail(2), lose(2)])
def test_nothing_is_said_about_an_output_that_does_not_exist(command: Command) -> None:
    with pytest.raises(NothingToKeep):
        given(completed(2)).when(command)


COUNT = 3
indexes = st.integers(0, COUNT - 1)
attempts = st.integers(1, 4)
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(store, indexes, attempts),
    st.builds(fail, indexes, attempts),
    st.builds(lose, indexes, attempts),
)


@hypothesis_given(
    st.sets(st.integers(0, COUNT - 1), max_size=COUNT - 1), st.lists(commands, max_size=25)
)
def test_any_history_that_was_accepted_replays_and_no_decision_is_made_twice(
    at_once: set[int], commands: list[Command]
) -> None:
    first = completed(COUNT, at_once=sorted(at_once))
    history: list[AnyEvent] = [first]
    for command in commands:
        history.extend(decide(command, fold(map(sealed, history))))
        assert decide(command, fold(map(sealed, history))) == []

    ids = [sealed(event).id for event in history]
    assert len(ids) == len(set(ids)), "no fact is said twice"

    state = fold(map(sealed, history))
    assert isinstance(state, Kept)
    all_stored = all(isinstance(output, Stored) for output in state.outputs.values())
    assert state.migration_completed == all_stored
    for event in history:
        assert evolve(state, sealed(event)) == state, "an event read again changes nothing"
