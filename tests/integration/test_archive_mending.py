"""The manifest loses entries: what is sound is read, and segments tell what the entries were."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from shared.archive.archive import Archive
from shared.archive.errors import ArchiveDamaged, ArchiveForked, ManifestBroken
from shared.archive.manifest import name_of
from shared.event_log.jetstream_trim import TrimmableStream

if TYPE_CHECKING:
    from shared.archive.manifest import Entry
    from tests.archives import Archived


async def without(archived: Archived, *entries: Entry) -> None:
    for entry in entries:
        await archived.bucket.delete(f"{archived.archive.manifest}{name_of(entry)}")


async def objects(archived: Archived) -> dict[str, str | None]:
    heads = [await archived.bucket.head(key) async for key in archived.bucket.keys("")]
    return {head.key: head.sha256 for head in heads if head is not None}


async def positions(
    archived: Archived, *, after: int, until: int | None = None, into: list[int] | None = None
) -> list[int]:
    read: list[int] = [] if into is None else into
    async with aclosing(archived.archive.read(after=after, until=until)) as source:
        async for records in source:
            read += [record.position for record in records]
    return read


async def test_what_is_on_either_side_of_a_missing_entry_is_read(archived: Archived) -> None:
    await archived.fill(1, 100)
    _, second, third, *_ = written = await archived.catch_up()
    await without(archived, second)
    end = written[-1].last
    assert await positions(archived, after=0, until=second.first - 1) == list(
        range(1, second.first)
    )
    assert await positions(archived, after=second.last) == list(range(third.first, end + 1))
    found = await archived.archive.records_at([1, end])
    assert [record.position for record in found] == [1, end]


async def test_nothing_is_read_across_a_missing_entry(archived: Archived) -> None:
    await archived.fill(1, 100)
    _, second, *_ = await archived.catch_up()
    await without(archived, second)
    read: list[int] = []
    with pytest.raises(ManifestBroken):
        await positions(archived, after=0, into=read)
    assert read == list(range(1, second.first))
    with pytest.raises(ManifestBroken):
        await positions(archived, after=second.first)
    with pytest.raises(ArchiveDamaged, match=f"no event at position {second.first}"):
        await archived.archive.records_at([second.first])
    with pytest.raises(ManifestBroken):
        await archived.archive.head()


@pytest.mark.parametrize("lost", [(0,), (1, 2), (0, 2), (1, 3)], ids=str)
async def test_missing_entries_are_made_anew_as_they_were(
    archived: Archived, lost: tuple[int, ...]
) -> None:
    await archived.fill(1, 130)
    written = await archived.catch_up(everything=True)
    assert max(lost) < len(written) - 1
    before = await objects(archived)
    await without(archived, *(written[number] for number in lost))
    assert await objects(archived) != before
    await archived.fill(131, 150)
    new = await archived.catch_up(everything=True)
    assert [entry.first for entry in new][:1] == [131]
    assert before.items() <= (await objects(archived)).items()
    assert [entry async for entry in archived.archive.entries()] == [*written, *new]


async def test_of_two_ways_to_cut_the_same_events_the_one_that_leads_on_is_taken(
    archived: Archived,
) -> None:
    await archived.fill(1, 100)
    first, second, *_ = written = await archived.catch_up()
    records = (await archived.in_stream())[first.last : first.last + 5]
    other = await archived.archive.write(records, after=first)
    await without(archived, second, other)
    assert await archived.catch_up() == []
    assert [entry async for entry in archived.archive.entries()] == written


async def test_an_entry_whose_segment_is_damaged_too_is_not_made_up(archived: Archived) -> None:
    await archived.fill(1, 100)
    _, second, *_ = await archived.catch_up()
    await without(archived, second)
    await archived.bucket.delete(second.key)
    left = await objects(archived)
    with pytest.raises(ManifestBroken):
        await archived.catch_up()
    assert await objects(archived) == left


async def test_mending_ends_where_the_bucket_does_not_list_what_was_made(
    archived: Archived, monkeypatch: pytest.MonkeyPatch
) -> None:
    await archived.fill(1, 100)
    _, second, *_ = await archived.catch_up()
    await without(archived, second)
    made: list[Entry] = []

    async def swallowed(_archive: Archive, entry: Entry) -> None:
        made.append(entry)

    monkeypatch.setattr(Archive, "put_entry", swallowed)
    with pytest.raises(ManifestBroken):
        await archived.catch_up()
    assert made == [second]


async def test_a_lost_end_is_made_anew_where_the_log_does_not_have_it_any_more(
    archived: Archived,
) -> None:
    await archived.fill(1, 60)
    written = await archived.catch_up(everything=True)
    await archived.trim()
    await without(archived, *written[1:])
    before = await objects(archived)
    assert await archived.catch_up(everything=True) == []
    assert [entry async for entry in archived.archive.entries()] == written
    assert before.items() <= (await objects(archived)).items()


async def test_a_lost_end_of_another_history_is_not_made_part_of_this_one(
    archived: Archived,
) -> None:
    await archived.fill(1, 60)
    written = await archived.catch_up(everything=True)
    await archived.trim()
    await without(archived, *written[1:])
    await archived.delete_stream()
    await archived.declare()
    await archived.fill(1, 60, text="another history")
    await TrimmableStream(archived.connection, archived.stream).purge_until(59)
    left = await objects(archived)
    with pytest.raises(ArchiveForked):
        await archived.catch_up(everything=True)
    assert await objects(archived) == left
