"""How records become what one transaction applies."""

from __future__ import annotations

from datetime import UTC, datetime

from shared.contracts.codec import encode
from shared.contracts.envelope import Context, Recorded, seal
from shared.contracts.generation_events import GenerationCancelled
from shared.contracts.subjects import Subjects
from shared.event_log.port import RawRecord
from shared.projection.batch import Decoding, Unreadable
from shared.projection.tables import event_fingerprint

AT = datetime(2026, 3, 1, tzinfo=UTC)


def record(position: int, generation_id: str, *, under: str | None = None) -> RawRecord:
    envelope = seal(
        GenerationCancelled(), generation_id=generation_id, at=AT, context=Context(source="test")
    )
    return RawRecord(position, f"velro.generation.{under or generation_id}", encode(envelope))


async def test_events_are_grouped_by_generation_in_the_order_of_the_log() -> None:
    records = [record(1, "a"), record(2, "b"), record(3, "a")]
    batch = await Decoding(Subjects()).batch(records)
    assert [
        (generation_id, [event.position for event in history])
        for generation_id, history in batch.histories.items()
    ] == [("a", [1, 3]), ("b", [2])]
    assert batch.last == 3
    assert batch.fingerprint == event_fingerprint(records[-1].data)


async def test_what_cannot_be_decoded_stays_in_its_place_in_its_generation() -> None:
    torn = RawRecord(2, "velro.storage.a", b'{"type": "velro.storage.completed.v1"}')
    no_json = RawRecord(4, "velro.generation.b", b"\0\0")
    batch = await Decoding(Subjects()).batch([record(1, "a"), torn, record(3, "a"), no_json])
    first, second, third = batch.histories["a"]
    assert isinstance(first, Recorded)
    assert isinstance(second, Unreadable)
    assert second.event_type == "velro.storage.completed.v1"
    assert second.reason
    assert isinstance(third, Recorded)
    [fourth] = batch.histories["b"]
    assert isinstance(fourth, Unreadable)
    assert fourth.event_type is None


async def test_an_event_under_the_subject_of_another_generation_belongs_to_the_subject() -> None:
    batch = await Decoding(Subjects()).batch([record(1, "a", under="b")])
    [event] = batch.histories["b"]
    assert isinstance(event, Unreadable)
    assert "generation a" in event.reason


async def test_a_subject_that_is_none_of_the_logs_stands_for_itself() -> None:
    batch = await Decoding(Subjects()).batch([RawRecord(1, "elsewhere.x", b"?")])
    assert list(batch.histories) == ["elsewhere.x"]
