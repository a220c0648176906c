"""What a generation's row becomes with each event, whichever service wrote it."""

from __future__ import annotations

from datetime import timedelta
from functools import reduce
from itertools import count
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from generation_svc.read_model.fold import evolve
from generation_svc.read_model.model import dump_outputs, load_outputs
from generation_svc.read_model.rows import Failure, GenerationRow, Migration, Status, StorageState
from shared.contracts.envelope import UNKNOWN_ENVELOPE, Context, Recorded, UnknownEvent, seal
from shared.contracts.generation_events import (
    GenerationFailed,
    LinksRenewed,
    RenewedLink,
    SubmissionStarted,
)
from shared.contracts.storage_events import QuarantineReleased
from tests.generation_events import (
    CANCELLED,
    DIES_AT,
    FAILED,
    NOON,
    REQUESTED,
    STARTED,
    SUBMITTED,
    Where,
    attempt_failed,
    completed,
    media_lost,
    media_stored,
    migrated,
    storage_failed,
    stored,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shared.contracts.events import AnyEvent


def recorded(event: AnyEvent, position: int) -> Recorded:
    at = NOON + timedelta(seconds=position)
    return Recorded(position, seal(event, generation_id="g", at=at, context=Context(source="test")))


def folded(events: Iterable[AnyEvent]) -> GenerationRow | None:
    row: GenerationRow | None = None
    for event, position in zip(events, count(1)):
        row = evolve(row, recorded(event, position))
    return row


def row_of(*events: AnyEvent) -> GenerationRow:
    row = folded(events)
    assert row is not None
    return row


def test_a_generation_goes_from_requested_to_completed() -> None:
    row = row_of(REQUESTED)
    assert (row.status, row.attempts, row.storage_state) == (
        Status.REQUESTED,
        0,
        StorageState.NONE,
    )
    assert row.asked is not None
    assert row.asked.input == '{"prompt":"a\\u0000b"}'
    assert row.asked.metadata == '{"p":1}'

    row = row_of(REQUESTED, STARTED)
    assert (row.status, row.attempts) == (Status.SUBMITTING, 1)

    row = row_of(REQUESTED, STARTED, SUBMITTED)
    assert (row.status, row.request_id) == (Status.RUNNING, "r")

    row = row_of(REQUESTED, STARTED, SUBMITTED, completed("bucket", "bucket"))
    assert (row.status, row.storage_state) == (Status.COMPLETED, StorageState.STORED)
    assert row.created_at == NOON + timedelta(seconds=1)
    assert row.finished_at == row.updated_at == NOON + timedelta(seconds=4)
    assert row.position == 4
    assert row.earliest_link_death is None


def test_what_was_given_up_on_is_failed_until_its_media_comes() -> None:
    given_up = GenerationFailed(code="late", detail="", retryable=True, given_up=True)
    row = row_of(REQUESTED, STARTED, SUBMITTED, given_up)
    assert (row.status, row.outputs) == (Status.FAILED, ())
    row = row_of(REQUESTED, STARTED, SUBMITTED, given_up, completed("link"))
    assert (row.status, row.failure) == (Status.COMPLETED, None)
    assert row.storage_state is StorageState.TEMPORARY
    assert row_of(REQUESTED, FAILED, completed("link")).status is Status.FAILED


def test_media_of_another_service_has_a_row_without_a_request() -> None:
    row = row_of(completed("link"))
    assert (row.status, row.asked, row.user_id) == (Status.COMPLETED, None, "ann")
    assert row.storage_state is StorageState.TEMPORARY


def test_a_generation_whose_storage_failed_stays_completed_with_its_links() -> None:
    row = row_of(REQUESTED, completed("link", "bucket", "link"), storage_failed(0, 2))
    assert (row.status, row.storage_state) == (Status.COMPLETED, StorageState.PARTIAL)
    assert [output.source_url for output in row.outputs] == [
        "https://media.example/0.png",
        "https://media.example/1.png",
        "https://media.example/2.png",
    ]
    assert [output.failure_reason for output in row.outputs] == [
        "bucket_unavailable",
        None,
        "bucket_unavailable",
    ]
    assert row.earliest_link_death == DIES_AT
    assert row.storage_failed_at == row.updated_at


def test_what_is_stored_changes_its_own_output_and_no_other() -> None:
    before = row_of(completed("link", "link", "link"), storage_failed(0, 1, 2))
    after = evolve(before, recorded(media_stored(1), 9))
    assert after is not None
    assert after.outputs[0] is before.outputs[0]
    assert after.outputs[2] is before.outputs[2]
    assert (after.outputs[1].stored, after.outputs[1].failure_reason) == (stored(1), None)
    assert after.storage_state is StorageState.PARTIAL


def test_only_the_last_output_stored_makes_the_generation_stored() -> None:
    history = [completed("link", "link"), storage_failed(0, 1), media_stored(0)]
    assert row_of(*history).storage_state is StorageState.PARTIAL
    row = row_of(*history, media_stored(1), migrated(2))
    assert row.storage_state is StorageState.STORED
    assert row.migration == Migration(NOON + timedelta(seconds=5), 21, 2)


def test_a_migration_said_to_be_complete_before_every_output_is_stored_is_not_believed() -> None:
    row = row_of(completed("link", "link"), media_stored(0), migrated(1))
    assert (row.storage_state, row.migration) == (StorageState.PARTIAL, None)


def test_a_lost_output_keeps_its_link_and_is_seen_as_lost() -> None:
    row = row_of(completed("link", "link"), media_stored(0), media_lost(1))
    assert (row.status, row.storage_state) == (Status.COMPLETED, StorageState.LOST)
    assert row.outputs[1].source_url == "https://media.example/1.png"
    assert row.outputs[1].lost_reason == "source_expired"
    assert row.earliest_link_death is None


def test_bytes_in_the_bucket_outweigh_having_given_up() -> None:
    row = row_of(completed("link"), media_lost(0), media_stored(0), migrated(1))
    assert (row.storage_state, row.outputs[0].lost_reason) == (StorageState.STORED, None)


def test_a_storage_failure_told_after_the_copy_was_made_says_nothing_of_that_output() -> None:
    row = row_of(completed("link", "link"), media_stored(0), storage_failed(0, 1))
    assert [output.failure_reason for output in row.outputs] == [None, "bucket_unavailable"]
    assert row.storage_failed_at is not None


def test_a_failed_generation_says_why() -> None:
    row = row_of(REQUESTED, STARTED, SUBMITTED, FAILED)
    assert (row.status, row.failure) == (Status.FAILED, Failure("refused", "no", False, True))  # noqa: FBT003 - as stored
    assert row.finished_at is not None


def test_what_comes_after_the_end_changes_nothing() -> None:
    for end in (completed("bucket"), FAILED, CANCELLED):
        row = row_of(REQUESTED, STARTED, end)
        for late in (REQUESTED, STARTED, SUBMITTED, completed("link"), FAILED, CANCELLED):
            assert evolve(row, recorded(late, 9)) is row


def test_storage_events_of_an_unknown_generation_or_output_make_no_row_and_no_change() -> None:
    for event in (media_stored(0), attempt_failed(0), media_lost(0), migrated(1)):
        assert folded([event]) is None
    row = row_of(completed("link"))
    assert evolve(row, recorded(media_stored(7), 9)) is row


def test_an_event_of_an_unknown_type_is_passed_by() -> None:
    envelope = UNKNOWN_ENVELOPE(
        id="x", source="test", type="velro.new.v1", time=NOON, subject="g",
        data=UnknownEvent(body={}),
    )  # fmt: skip
    row = row_of(REQUESTED)
    assert evolve(row, Recorded(9, envelope)) is row
    assert evolve(None, Recorded(9, envelope)) is None


WHERE: st.SearchStrategy[Where] = st.sampled_from(["bucket", "link"])
ANY_EVENT = st.one_of(
    st.sampled_from([REQUESTED, STARTED, SubmissionStarted(attempt=2), SUBMITTED]),
    st.sampled_from([FAILED, CANCELLED]),
    st.lists(WHERE, min_size=1, max_size=3).map(lambda where: completed(*where)),
    st.sets(st.integers(0, 3), min_size=1).map(lambda indexes: storage_failed(*indexes)),
    st.integers(0, 3).map(media_stored),
    st.builds(attempt_failed, st.integers(0, 3), st.integers(1, 3)),
    st.integers(0, 3).map(media_lost),
    st.integers(1, 3).map(migrated),
)


@given(st.lists(ANY_EVENT, max_size=20))
def test_any_history_folds_and_what_the_table_promises_holds(history: list[AnyEvent]) -> None:
    row: GenerationRow | None = None
    for event, position in zip(history, count(1)):
        row = evolve(row, recorded(event, position))
        if row is None:
            continue
        assert (row.status is Status.COMPLETED) == (row.storage_state is not StorageState.NONE)
        assert (row.status is Status.FAILED) == (row.failure is not None)
        assert row.status.finished == (row.finished_at is not None)
        assert row.migration is None or row.storage_state is StorageState.STORED
        assert row.earliest_link_death is None or row.storage_state is not StorageState.STORED
        assert load_outputs(dump_outputs(row.outputs)) == row.outputs


@given(st.lists(ANY_EVENT, max_size=20))
def test_folding_an_event_twice_is_the_same_as_folding_it_once(history: list[AnyEvent]) -> None:
    once: GenerationRow | None = None
    twice: GenerationRow | None = None
    for event, position in zip(history, count(1)):
        once = evolve(once, recorded(event, position))
        twice = reduce(evolve, [recorded(event, position)] * 2, twice)
        assert once == twice


PER_OUTPUT = st.lists(st.sampled_from(["failed", "lost", "stored"]), max_size=4)


@given(st.data(), st.lists(PER_OUTPUT, min_size=1, max_size=3))
def test_in_which_order_outputs_are_settled_does_not_matter(
    data: st.DataObject, per_output: list[list[str]]
) -> None:
    make = {"failed": attempt_failed, "lost": media_lost, "stored": media_stored}
    queues = [[make[word](index) for word in words] for index, words in enumerate(per_output)]
    in_sequence = [event for queue in queues for event in queue]
    turns = data.draw(st.permutations([index for index, queue in enumerate(queues) for _ in queue]))
    left = [iter(queue) for queue in queues]
    mingled = [next(left[turn]) for turn in turns]

    nowhere: list[Where] = ["link"] * len(per_output)
    first = completed(*nowhere)
    one, other = row_of(first, *in_sequence), row_of(first, *mingled)
    same = {"position": 0, "updated_at": NOON}
    assert one._replace(**same) == other._replace(**same)


RENEWED = LinksRenewed(
    request=1,
    links=(
        RenewedLink(
            index=1, source_url="https://media.example/new.png", expires_at=DIES_AT + timedelta(1)
        ),
    ),
)


def test_a_renewed_link_takes_the_place_of_its_own_output_and_of_no_other() -> None:
    before = row_of(completed("link", "link"))
    after = row_of(completed("link", "link"), RENEWED)
    assert after.outputs[0] == before.outputs[0]
    assert after.outputs[1].source_url == "https://media.example/new.png"
    assert after.outputs[1].expires_at == DIES_AT + timedelta(1)


def test_an_output_that_is_stored_needs_no_new_link() -> None:
    before = row_of(completed("link", "link"), media_stored(1))
    after = row_of(completed("link", "link"), media_stored(1), RENEWED)
    assert after.outputs == before.outputs


def test_what_was_lost_waits_again_after_a_new_link_a_release_or_another_try() -> None:
    lost = (completed("link", "link"), media_lost(1))
    assert row_of(*lost).outputs[1].lost_reason is not None
    released = QuarantineReleased(index=1, attempt=3)
    for again in (RENEWED, released, attempt_failed(1, 4)):
        row = row_of(*lost, again)
        assert row.outputs[1].lost_reason is None
        assert row.storage_state is StorageState.TEMPORARY
