"""An object that was stored and is gone: what every fold makes of it, and how it comes back."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING

from generation_svc.read_model.fold import evolve as evolve_generation
from generation_svc.read_model.rows import GenerationRow, StorageState
from shared.contracts.envelope import Context, Recorded, seal
from shared.contracts.reasons import ReasonCode
from shared.contracts.storage_events import MediaStored, ObjectLost
from storage_svc.domain.commands import RecordObjectLost, RecordStored
from storage_svc.domain.decide import decide
from storage_svc.domain.state import Kept, Lost, Stored, fold
from storage_svc.read_model.entries import EntryState
from storage_svc.read_model.rows import Backlog
from storage_svc.read_model.rows import evolve as evolve_backlog
from tests.generation_events import (
    NOON,
    REQUESTED,
    completed,
    media_stored,
    migrated,
    stored,
)

if TYPE_CHECKING:
    from shared.contracts.events import AnyEvent

OBJECT = stored(0)
GONE = ObjectLost(
    index=0,
    object_key=OBJECT.key,
    loss=1,
    reason=ReasonCode.SOURCE_EXPIRED,
    detail="its link answers 404",
)
RECORD = RecordObjectLost(0, OBJECT.key, GONE.reason, GONE.detail)
AGAIN = RecordStored(0, attempt=2, object=OBJECT, took_s=0.1)
AT_ONCE = (REQUESTED, completed("bucket"))
MIGRATED = (REQUESTED, completed("link"), media_stored(0), migrated(1))


def recorded(*events: AnyEvent) -> list[Recorded]:
    positions = count(1)
    return [
        Recorded(
            position,
            seal(
                event,
                generation_id="g",
                at=NOON + timedelta(seconds=position),
                context=Context(source="test"),
            ),
        )
        for event, position in zip(events, positions, strict=False)
    ]


def state_after(*events: AnyEvent) -> Kept:
    state = fold(each.envelope for each in recorded(*events))
    assert isinstance(state, Kept)
    return state


def generation_after(*events: AnyEvent) -> GenerationRow:
    row: GenerationRow | None = None
    for each in recorded(*events):
        row = evolve_generation(row, each)
    assert row is not None
    return row


def backlog_after(*events: AnyEvent) -> Backlog | None:
    row: Backlog | None = None
    for each in recorded(*events):
        row = evolve_backlog(row, each)
    return row


def test_it_is_said_once() -> None:
    for before in (AT_ONCE, MIGRATED):
        assert decide(RECORD, state_after(*before)) == [GONE]
        assert decide(RECORD, state_after(*before, GONE)) == []


def test_it_is_not_said_of_another_object_than_the_one_that_is_stored() -> None:
    other = RecordObjectLost(0, "ann/g/0-other.png", GONE.reason, GONE.detail)
    assert decide(other, state_after(*AT_ONCE)) == []


def test_the_output_is_lost_then() -> None:
    for before in (AT_ONCE, MIGRATED):
        match state_after(*before, GONE).outputs[0]:
            case Lost(past=past, reason=ReasonCode.SOURCE_EXPIRED):
                assert past.link.source_url == "https://media.example/0.png"
                assert past.vanished == 1
            case other:
                raise AssertionError(other)


def test_stored_again_it_has_an_id_of_its_own_and_can_be_lost_again() -> None:
    for before in (AT_ONCE, MIGRATED):
        events = decide(AGAIN, state_after(*before, GONE))
        restored = events[0]
        assert isinstance(restored, MediaStored)
        assert restored.again == 2
        assert restored.key() == "0-2"
        after = (*before, GONE, *events)
        assert isinstance(state_after(*after).outputs[0], Stored)
        (again,) = decide(RECORD, state_after(*after))
        assert isinstance(again, ObjectLost)
        assert again.loss == 2


def test_the_flags_come_up_again_and_the_other_outputs_are_not_touched() -> None:
    before = (REQUESTED, completed("bucket", "bucket"))
    row = generation_after(*before, GONE)
    assert row.storage_state is StorageState.LOST
    assert row.outputs[0].stored is None
    assert row.outputs[0].lost_reason == "source_expired"
    assert row.outputs[1] == generation_after(*before).outputs[1]


def test_a_migration_is_not_complete_any_more() -> None:
    assert generation_after(*MIGRATED).migration is not None
    assert generation_after(*MIGRATED, GONE).migration is None


def test_stored_again_the_flags_are_down() -> None:
    restored = MediaStored(index=0, attempt=2, object=OBJECT, took_s=0.1, again=2)
    row = generation_after(*AT_ONCE, GONE, restored)
    assert row.storage_state is StorageState.STORED
    assert row.outputs[0].lost_reason is None


def test_a_loss_of_another_object_changes_no_row() -> None:
    other = GONE.model_copy(update={"object_key": "ann/g/0-other.png"})
    assert generation_after(*MIGRATED, other) == generation_after(*MIGRATED)
    assert backlog_after(*MIGRATED, other) == backlog_after(*MIGRATED)


def test_the_backlog_lists_it_as_lost() -> None:
    backlog = backlog_after(*MIGRATED, GONE)
    assert backlog is not None
    (entry,) = backlog.entries
    assert entry.state is EntryState.LOST
    assert (entry.reason, entry.detail) == ("source_expired", GONE.detail)
    assert (entry.bucket, entry.object_key, entry.size_bytes, entry.sha256) == (None,) * 4
    assert backlog_after(*AT_ONCE, GONE) is None
