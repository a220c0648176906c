"""A segment gives back what was packed into it, or says that it is not the one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.archive.errors import ArchiveDamaged
from shared.archive.segment import (
    NO_SEGMENT,
    Segment,
    pack,
    raw_records,
    record_sha256,
    unpack,
    whole_records,
)
from shared.event_log.port import RawRecord, WholeRecord

CONTENTS = st.lists(
    st.tuples(st.text(max_size=20), st.binary(max_size=30), st.binary(max_size=50)), min_size=1
)


def records(*contents: tuple[str, bytes, bytes], first: int = 1) -> list[WholeRecord]:
    return [
        WholeRecord(first + number, subject, data, headers, 1_700_000_000_000_000_000 + number)
        for number, (subject, headers, data) in enumerate(contents)
    ]


ONE = records(("velro.generation.a", b"Nats-Msg-Id: a\r\n", b"{}"), ("velro.storage.a", b"", b"x"))


def opened(segment: Segment) -> bytes:
    _, content = unpack(
        segment.packed, content_sha256=segment.content_sha256, max_bytes=segment.content_bytes
    )
    return content


@given(CONTENTS)
def test_every_record_comes_back_whole(contents: list[tuple[str, bytes, bytes]]) -> None:
    packed = records(*contents, first=7)
    content = opened(pack(packed, previous=NO_SEGMENT))
    assert list(whole_records(content)) == packed
    assert list(raw_records(content)) == [
        RawRecord(record.position, record.subject, record.data) for record in packed
    ]


def test_a_segment_names_its_positions_and_the_segment_before() -> None:
    head, _ = unpack(
        (segment := pack(ONE, previous="ab" * 32)).packed,
        content_sha256=segment.content_sha256,
        max_bytes=segment.content_bytes,
    )
    assert (head.first, head.last, head.previous) == (1, 2, "ab" * 32)


def test_the_same_records_make_the_same_segment_and_others_another() -> None:
    one = pack(ONE, previous=NO_SEGMENT)
    assert pack(ONE, previous=NO_SEGMENT) == one
    assert pack(ONE, previous="ab" * 32).content_sha256 != one.content_sha256
    assert pack(ONE[:1], previous=NO_SEGMENT).content_sha256 != one.content_sha256


@pytest.mark.parametrize("at", [0, 10, -1])
def test_a_byte_that_changed_is_found(at: int) -> None:
    segment = pack(ONE, previous=NO_SEGMENT)
    broken = bytearray(segment.packed)
    broken[at] ^= 0xFF
    with pytest.raises(ArchiveDamaged):
        unpack(
            bytes(broken),
            content_sha256=segment.content_sha256,
            max_bytes=segment.content_bytes,
        )


def test_another_segment_in_its_place_is_found() -> None:
    one, other = pack(ONE, previous=NO_SEGMENT), pack(ONE[:1], previous=NO_SEGMENT)
    with pytest.raises(ArchiveDamaged, match="hash"):
        unpack(other.packed, content_sha256=one.content_sha256, max_bytes=one.content_bytes)


def test_a_segment_that_unpacks_to_more_than_was_packed_takes_no_more_memory() -> None:
    small = pack(ONE, previous=NO_SEGMENT)
    bomb = pack(records(("s", b"", b"\0" * 50_000_000)), previous=NO_SEGMENT)
    with pytest.raises(ArchiveDamaged):
        unpack(bomb.packed, content_sha256=small.content_sha256, max_bytes=small.content_bytes)


def test_when_an_event_was_stored_does_not_make_it_another() -> None:
    (first, _) = ONE
    again = WholeRecord(first.position, first.subject, first.data, first.headers, 5)
    moved = WholeRecord(9, first.subject, first.data, first.headers, first.stored_at_ns)
    changed = WholeRecord(1, first.subject, b"{ }", first.headers, first.stored_at_ns)
    assert record_sha256(again) == record_sha256(first)
    assert record_sha256(moved) != record_sha256(first)
    assert record_sha256(changed) != record_sha256(first)
