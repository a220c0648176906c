"""What the backlog's rows become with each event."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from shared.contracts.envelope import Context, Recorded, seal
from shared.contracts.facts import Output, OutputFailure, StoredObject
from shared.contracts.generation_events import (
    GenerationCompleted,
    GenerationRequested,
    LinksNotRenewed,
    LinksRenewed,
    RenewedLink,
    StorageFailed,
)
from shared.contracts.reasons import ReasonCode
from shared.contracts.storage_events import (
    MediaLost,
    MediaStored,
    MigrationAttemptFailed,
    MigrationCompleted,
    QuarantineRejected,
    QuarantineReleased,
    RefetchRequested,
)
from storage_svc.read_model.entries import Entry, EntryState
from storage_svc.read_model.rows import Backlog, evolve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.contracts.events import AnyEvent

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DIES_AT = NOON + timedelta(hours=1)
OBJECT = StoredObject(
    bucket="media", key="user/g/0-ab.png", size_bytes=3, sha256="ab" * 32, media_type="image/png"
)


def completed(*stored: StoredObject | None) -> GenerationCompleted:
    return GenerationCompleted(
        user_id="ann",
        provider="sandbox",
        model="painter",
        outputs=tuple(
            Output(
                index=index,
                source_url=f"https://media.example:8443/{index}.png",
                expires_at=DIES_AT,
                stored=one,
            )
            for index, one in enumerate(stored)
        ),
    )


def after(*events: AnyEvent) -> Backlog | None:
    row: Backlog | None = None
    for position, event in enumerate(events, start=1):
        sealed = seal(
            event,
            generation_id="g",
            at=NOON + timedelta(seconds=position),
            context=Context(source="test"),
        )
        row = evolve(row, Recorded(position, sealed))
    return row


def entries(*events: AnyEvent) -> Sequence[Entry]:
    row = after(*events)
    assert row is not None
    return row.entries


def failed(attempt: int) -> MigrationAttemptFailed:
    return MigrationAttemptFailed(
        index=0,
        attempt=attempt,
        reason=ReasonCode.BUCKET_UNAVAILABLE,
        detail="no answer",
        retry_at=NOON + timedelta(minutes=attempt),
    )


LOST = MediaLost(index=0, attempt=2, reason=ReasonCode.SOURCE_EXPIRED, detail="410 Gone")
QUARANTINED = MediaLost(
    index=0,
    attempt=2,
    reason=ReasonCode.MEDIA_TYPE_REFUSED,
    detail="the bytes are an HTML page",
    media_type="text/html",
)
ASKED = RefetchRequested(request=1, indexes=(0,), answer_by=NOON + timedelta(minutes=15))
RENEWED = LinksRenewed(
    request=1,
    links=(
        RenewedLink(
            index=0, source_url="https://new.example/0", expires_at=DIES_AT + timedelta(days=1)
        ),
    ),
)
STORED = MediaStored(index=0, attempt=3, object=OBJECT, took_s=0.2)


def test_a_completion_with_temporary_outputs_opens_one_entry_an_output() -> None:
    row = after(completed(None, OBJECT, None))
    assert row is not None
    assert (row.user_id, row.provider, row.position) == ("ann", "sandbox", 1)
    assert [entry.output_index for entry in row.entries] == [0, 2]
    first = row.entries[0]
    assert first.source_host == "media.example"
    assert first.dies_at == DIES_AT
    assert first.state is EntryState.PENDING
    assert first.next_attempt_at == NOON + timedelta(seconds=1), "it may be copied at once"


def test_what_was_stored_at_once_leaves_no_row() -> None:
    assert after(completed(OBJECT, OBJECT)) is None


def test_a_generation_that_is_not_completed_leaves_no_row() -> None:
    requested = GenerationRequested(user_id="ann", provider="sandbox", model="painter", input={})
    assert after(requested, STORED, failed(1), LOST) is None


def test_storage_failed_says_why_until_an_attempt_knows_better() -> None:
    told = StorageFailed(
        failures=(OutputFailure(index=0, reason=ReasonCode.TOO_SLOW, detail="5 s are over"),)
    )
    (entry,) = entries(completed(None), told)
    assert (entry.reason, entry.attempts) == ("too_slow", 0)
    (entry,) = entries(completed(None), failed(1), told)
    assert (entry.reason, entry.attempts) == ("bucket_unavailable", 1)


def test_a_failed_migration_is_visible_as_failed() -> None:
    (entry,) = entries(completed(None), failed(1), failed(2))
    assert entry.state is EntryState.PENDING
    assert (entry.attempts, entry.reason, entry.detail) == (2, "bucket_unavailable", "no answer")
    assert entry.next_attempt_at == NOON + timedelta(minutes=2)
    assert entry.failed_at == NOON + timedelta(seconds=3)


def test_an_attempt_that_is_reported_late_changes_nothing() -> None:
    assert after(completed(None), failed(2), failed(1)) == after(completed(None), failed(2))


def test_a_stored_output_has_its_object_and_no_next_attempt() -> None:
    (entry,) = entries(completed(None), failed(1), STORED)
    assert entry.state is EntryState.STORED
    assert entry.object_key == OBJECT.key
    assert entry.next_attempt_at is None
    assert entry.reason is None


def test_a_lost_output_says_why() -> None:
    (entry,) = entries(completed(None), failed(1), LOST)
    assert entry.state is EntryState.LOST
    assert (entry.reason, entry.detail) == ("source_expired", "410 Gone")
    assert entry.next_attempt_at is None


def test_bytes_that_turn_up_after_giving_up_are_kept() -> None:
    (entry,) = entries(completed(None), LOST, STORED)
    assert entry.state is EntryState.STORED


def test_what_is_stored_cannot_be_lost_any_more() -> None:
    once = after(completed(None), STORED)
    assert after(completed(None), STORED, LOST, failed(4)) == once


def test_what_was_given_up_on_and_fails_again_waits_for_its_next_attempt() -> None:
    (entry,) = entries(completed(None), LOST, failed(3))
    assert entry.state is EntryState.PENDING
    assert (entry.attempts, entry.reason) == (3, "bucket_unavailable")
    assert entry.next_attempt_at == NOON + timedelta(minutes=3)
    assert entry.settled_at is None


def test_a_dead_link_waits_for_a_new_one_until_its_time_is_over() -> None:
    (entry,) = entries(completed(None), failed(1), ASKED)
    assert entry.state is EntryState.AWAITING_LINK
    assert entry.next_attempt_at == ASKED.answer_by


def test_a_new_link_is_ordered_by_its_own_death_and_may_be_copied_at_once() -> None:
    (entry,) = entries(completed(None), failed(1), ASKED, RENEWED)
    assert entry.state is EntryState.PENDING
    assert (entry.source_url, entry.source_host) == ("https://new.example/0", "new.example")
    assert (entry.dies_at, entry.first_dies_at) == (DIES_AT + timedelta(days=1), DIES_AT)
    assert entry.next_attempt_at == NOON + timedelta(seconds=4)


def test_a_link_that_is_not_renewed_is_due_at_once() -> None:
    refused = LinksNotRenewed(request=1, detail="forgotten")
    (entry,) = entries(completed(None), failed(1), ASKED, refused)
    assert entry.state is EntryState.AWAITING_LINK
    assert entry.next_attempt_at == NOON + timedelta(seconds=4)


def test_what_is_released_waits_to_be_copied_as_it_is() -> None:
    released = QuarantineReleased(index=0, attempt=2)
    (entry,) = entries(completed(None), QUARANTINED)
    assert (entry.state, entry.media_type) == (EntryState.LOST, "text/html")
    (entry,) = entries(completed(None), QUARANTINED, released)
    assert (entry.state, entry.as_is, entry.media_type) == (EntryState.PENDING, True, None)


def test_what_is_rejected_stays_lost_and_says_why() -> None:
    rejected = QuarantineRejected(index=0, attempt=2, detail="a page")
    (entry,) = entries(completed(None), QUARANTINED, rejected, failed(3))
    assert (entry.state, entry.rejected) == (EntryState.LOST, "a page")


def test_one_failed_output_never_drops_or_moves_the_others() -> None:
    before = entries(completed(None, None, None))
    now = entries(completed(None, None, None), failed(1))
    assert list(now[1:]) == list(before[1:])


def test_an_event_that_is_read_twice_changes_nothing() -> None:
    events = [
        completed(None, None),
        failed(1),
        STORED,
        MigrationCompleted(file_count=1, total_size_bytes=3),
    ]
    once = after(*events)
    twice = after(*events, *events)
    assert once is not None
    assert twice == once
