"""A generation as it was: the same fold, up to a moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from generation_svc.read_model.looking_back import (
    NoMoment,
    changes,
    fields_of,
    folded,
    history,
    moment,
    until,
    view_of,
)
from generation_svc.read_model.rows import Status
from shared.contracts.envelope import Context, Recorded, seal
from shared.contracts.subjects import Subjects
from shared.event_log.memory import MemoryLog
from shared.event_log.port import CorruptRecord
from tests.generation_events import (
    NOON,
    REQUESTED,
    STARTED,
    SUBMITTED,
    completed,
    media_stored,
    migrated,
    storage_failed,
    stored,
)

HISTORY = [
    Recorded(
        10 * number,
        seal(
            event,
            generation_id="g",
            at=NOON + timedelta(minutes=number),
            context=Context(source="tests"),
        ),
    )
    for number, event in enumerate(
        (
            REQUESTED,
            STARTED,
            SUBMITTED,
            completed("link", "link"),
            storage_failed(0, 1),
            media_stored(0),
            media_stored(1),
            migrated(2),
        ),
        start=1,
    )
]


async def test_an_event_that_nobody_can_read_hides_only_what_it_may_belong_to() -> None:
    subjects = Subjects()
    log = MemoryLog(subjects)
    await log.append("generation", "g", [each.envelope for each in HISTORY[:3]], expected=None)
    await log.append("storage", "g", [each.envelope for each in HISTORY[5:7]], expected=None)
    for subject in (subjects.generation("g"), subjects.storage("g")):
        log.put(subject, b"torn")

    def minute(number: float) -> datetime:
        return NOON + timedelta(minutes=number)

    assert len(await history(log, "g", at=minute(6.5))) == 4
    assert len(await history(log, "g", at=minute(2))) == 2
    assert len(await history(log, "g", at=5)) == 5
    # What is torn is later than the last one that is not, and may have been there a minute after.
    for at in (minute(7), None, 6):
        with pytest.raises(CorruptRecord, match="position 6, "):
            await history(log, "g", at=at)


def test_a_position_and_a_time_give_the_state_that_was() -> None:
    running = folded(until(HISTORY, 30))
    assert running is not None
    assert running.status is Status.RUNNING
    assert folded(until(HISTORY, 39)) == running
    assert folded(until(HISTORY, NOON + timedelta(minutes=3, seconds=59))) == running
    assert folded(until(HISTORY, 9)) is None


def test_a_view_of_the_past_has_the_flags_of_the_past() -> None:
    row = folded(until(HISTORY, 60))
    assert row is not None
    view = view_of("g", row)
    assert view.storage_retry_needed
    assert not view.storage_successful
    assert [output.stored is not None for output in view.outputs] == [True, False]
    assert view.input == REQUESTED.input
    last = folded(HISTORY)
    assert last is not None
    assert view_of("g", last).storage_successful
    assert view_of("g", last).migration_file_count == 2


def test_each_event_is_listed_with_the_fields_that_it_changed() -> None:
    found = changes(HISTORY, 30, 60)
    assert [change.event.position for change in found] == [40, 50, 60]
    finished, failed, put = (change.fields for change in found)
    assert finished["status"] == ("running", "completed")
    assert finished["outputs.1.source_url"][0] is None
    assert set(failed) == {
        "outputs.0.failure_reason",
        "outputs.1.failure_reason",
        "storage_failed_at",
    }
    assert finished["storage_retry_needed"] == (False, True)
    assert put["storage_state"] == ("temporary", "partial")
    assert put["outputs.0.stored"][0] is None
    assert put["outputs.0.stored"][1]["key"] == stored(0).key


def test_nothing_changed_between_a_moment_and_itself() -> None:
    assert changes(HISTORY, 40, 40) == []
    assert changes(HISTORY, 80, 1000) == []


def test_from_before_the_beginning_every_event_counts() -> None:
    assert len(changes(HISTORY, 0, NOON + timedelta(hours=1))) == len(HISTORY)


def test_fields_have_the_names_that_they_have_where_a_generation_is_shown() -> None:
    asked, *_ = changes(HISTORY, 0, 10)
    assert asked.fields["input"] == (None, REQUESTED.input)
    row = folded(HISTORY[:1])
    assert row is not None
    assert asked.fields.keys() <= fields_of("g", row).keys()


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("1234", 1234),
        ("2026-05-04T10:00:00Z", datetime(2026, 5, 4, 10, tzinfo=UTC)),
        ("2026-05-04T10:00:00+00:00", datetime(2026, 5, 4, 10, tzinfo=UTC)),
        ("2026-05-04T10:00:00 00:00", datetime(2026, 5, 4, 10, tzinfo=UTC)),
    ],
)
def test_moments_are_positions_or_times(text: str, read: object) -> None:
    assert moment(text) == read


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("yesterday", "neither a position"),
        ("-1", "neither a position"),
        ("", "neither a position"),
        ("2026-05-04T10:00:00", "has no zone"),
        ("٣", "neither a position"),
    ],
)
def test_what_is_no_moment_is_told(text: str, why: str) -> None:
    with pytest.raises(NoMoment, match=why):
        moment(text)
