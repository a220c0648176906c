"""The manifest loses entries: what is sound is read, and segments tell what the entries were."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from shared.archive.archive import Archive
from shared.archive.errors import ArchiveDamaged, ArchiveForked, ManifestBroken
from shared.archive.manifest import name_of
from shared.event_log.jetstream_trim import TrimmableStream
from tests.archives import Archived, open_archived

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shared.archive.manifest import Entry
    from velro.stack.seaweedfs import S3Address


@pytest.fixture
async def world(
    nats_url: str, subject_root: str, stream: str, bucket: S3Address
) -> AsyncGenerator[Archived]:
    async with open_archived(
        nats_url=nats_url, subject_root=subject_root, stream=stream, bucket=bucket
    ) as opened:
        yield opened


async def without(world: Archived, *entries: Entry) -> None:
    for entry in entries:
        await world.bucket.delete(f"{world.archive.manifest}{name_of(entry)}")


async def objects(world: Archived) -> dict[str, str | None]:
    heads = [await world.bucket.head(key) async for key in world.bucket.keys("")]
    return {head.key: head.sha256 for head in heads if head is not None}


async def positions(
    world: Archived, *, after: int, until: int | None = None, into: list[int] | None = None
) -> list[int]:
    read: list[int] = [] if into is None else into
    async with aclosing(world.archive.read(after=after, until=until)) as source:
        async for records in source:
            read += [record.position for record in records]
    return read


async def test_what_is_on_either_side_of_a_missing_entry_is_read(world: Archived) -> None:
    await world.fill(1, 100)
    _, second, third, *_ = written = await world.catch_up()
    await without(world, second)
    end = written[-1].last
    assert await positions(world, after=0, until=second.first - 1) == list(range(1, second.first))
    assert await positions(world, after=second.last) == list(range(third.first, end + 1))
    found = await world.archive.records_at([1, end])
    assert [record.position for record in found] == [1, end]


async def test_nothing_is_read_across_a_missing_entry(world: Archived) -> None:
    await world.fill(1, 100)
    _, second, *_ = await world.catch_up()
    await without(world, second)
    read: list[int] = []
    with pytest.raises(ManifestBroken):
        await positions(world, after=0, into=read)
    assert read == list(range(1, second.first))
    with pytest.raises(ManifestBroken):
        await positions(world, after=second.first)
    with pytest.raises(ArchiveDamaged, match=f"no event at position {second.first}"):
        await world.archive.records_at([second.first])
    with pytest.raises(ManifestBroken):
        await world.archive.head()


@pytest.mark.parametrize("lost", [(0,), (1, 2), (0, 2), (1, 3)], ids=str)
async def test_missing_entries_are_made_anew_as_they_were(
    world: Archived, lost: tuple[int, ...]
) -> None:
    await world.fill(1, 130)
    written = await world.catch_up(everything=True)
    assert max(lost) < len(written) - 1
    before = await objects(world)
    await without(world, *(written[number] for number in lost))
    assert await objects(world) != before
    await world.fill(131, 150)
    new = await world.catch_up(everything=True)
    assert [entry.first for entry in new][:1] == [131]
    assert before.items() <= (await objects(world)).items()
    assert [entry async for entry in world.archive.entries()] == [*written, *new]


async def test_of_two_ways_to_cut_the_same_events_the_one_that_leads_on_is_taken(
    world: Archived,
) -> None:
    await world.fill(1, 100)
    first, second, *_ = written = await world.catch_up()
    records = (await world.in_stream())[first.last : first.last + 5]
    other = await world.archive.write(records, after=first)
    await without(world, second, other)
    assert await world.catch_up() == []
    assert [entry async for entry in world.archive.entries()] == written


async def test_an_entry_whose_segment_is_damaged_too_is_not_made_up(world: Archived) -> None:
    await world.fill(1, 100)
    _, second, *_ = await world.catch_up()
    await without(world, second)
    await world.bucket.delete(second.key)
    left = await objects(world)
    with pytest.raises(ManifestBroken):
        await world.catch_up()
    assert await objects(world) == left


async def test_mending_ends_where_the_bucket_does_not_list_what_was_made(
    world: Archived, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.fill(1, 100)
    _, second, *_ = await world.catch_up()
    await without(world, second)
    made: list[Entry] = []

    async def swallowed(_archive: Archive, entry: Entry) -> None:
        made.append(entry)

    monkeypatch.setattr(Archive, "put_entry", swallowed)
    with pytest.raises(ManifestBroken):
        await world.catch_up()
    assert made == [second]


async def test_a_lost_end_is_made_anew_where_the_log_does_not_have_it_any_more(
    world: Archived,
) -> None:
    await world.fill(1, 60)
    written = await world.catch_up(everything=True)
    await world.trim()
    await without(world, *written[1:])
    before = await objects(world)
    assert await world.catch_up(everything=True) == []
    assert [entry async for entry in world.archive.entries()] == written
    assert before.items() <= (await objects(world)).items()


async def test_a_lost_end_of_another_history_is_not_made_part_of_this_one(
    world: Archived,
) -> None:
    await world.fill(1, 60)
    written = await world.catch_up(everything=True)
    await world.trim()
    await without(world, *written[1:])
    await world.delete_stream()
    await world.declare()
    await world.fill(1, 60, text="another history")
    await TrimmableStream(world.connection, world.stream).purge_until(59)
    left = await objects(world)
    with pytest.raises(ArchiveForked):
        await world.catch_up(everything=True)
    assert await objects(world) == left
