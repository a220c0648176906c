"""The log in the bucket: whole, found to be whole, and written by as many as like."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from shared.archive.errors import ArchiveDamaged, ArchiveForked
from shared.archive.segment import record_sha256
from shared.archive.settings import ArchiveSettings
from shared.contracts.reasons import ReasonCode
from shared.event_log.port import LogMismatch
from shared.object_store.keys import is_object_key
from shared.object_store.port import StoreFailed
from storage_svc.application.archiving import Archiver
from tests.archives import AT, Archived, open_archived
from tests.object_stores import rclone_s3
from velro.stack.seaweedfs import s3_client

if TYPE_CHECKING:
    from pathlib import Path

    from velro.stack.seaweedfs import S3Address


async def test_every_event_is_archived_whole_with_its_id_its_headers_and_its_time(
    archived: Archived,
) -> None:
    await archived.fill(1, 100)
    written = await archived.catch_up()
    assert len(written) > 2
    whole = await archived.whole()
    assert whole == await archived.in_stream()
    assert [record.position for record in whole] == list(range(1, 101))
    assert b"Nats-Msg-Id: g1:" in whole[0].headers
    assert b"Nats-Expected" not in whole[0].headers


async def test_each_segment_names_the_one_before_and_so_does_each_manifest_entry(
    archived: Archived,
) -> None:
    await archived.fill(1, 60)
    first, second, *_ = written = await archived.catch_up()
    assert [entry async for entry in archived.archive.entries()] == written
    assert (second.previous, second.first) == (first.hash, first.last + 1)
    content = await archived.archive.content(second)
    assert first.content_sha256.encode() in content[:300]
    assert await archived.archive.head() == written[-1]


async def test_a_segment_waits_until_it_is_full_or_old(archived: Archived) -> None:
    await archived.fill(1, 5)
    assert await archived.catch_up(everything=False) == []
    impatient = ArchiveSettings(segment_age_s=0.001)
    archiver = Archiver(archived.log, archived.archive, impatient, clock=archived.archiver.clock)
    assert [entry.last async for entry in archiver.catch_up()] == [5]


async def test_archiving_again_adds_nothing_and_goes_on_where_it_was(archived: Archived) -> None:
    assert await archived.catch_up() == []
    await archived.fill(1, 30)
    await archived.catch_up()
    assert await archived.catch_up() == []
    await archived.fill(31, 60)
    assert (await archived.catch_up())[0].first == 31
    assert await archived.whole() == await archived.in_stream()


async def test_two_archivers_at_once_do_no_harm(archived: Archived) -> None:
    await archived.fill(1, 200)
    await asyncio.gather(*(archived.catch_up() for _ in range(4)))
    # Whoever was overtaken has stopped; the next look finishes what is left.
    await archived.catch_up()
    assert await archived.whole() == await archived.in_stream()


async def test_an_archiver_that_cuts_differently_does_no_harm(archived: Archived) -> None:
    """Neither looked before writing: the bucket holds two chains, and both are true."""
    await archived.fill(1, 40)
    (one,) = [records async for records in archived.log.read_whole(after=0, until=40)]
    short = await archived.archive.write(one[:10], after=None)
    long = await archived.archive.write(one[:30], after=None)
    await archived.archive.write(one[10:25], after=short)
    assert await archived.archive.head() == long
    await archived.catch_up()
    assert await archived.whole() == await archived.in_stream()


async def test_archive_and_log_are_read_as_one(archived: Archived) -> None:
    await archived.fill(1, 50)
    await archived.catch_up()
    await archived.fill(51, 70)
    positions = [record.position for record in await archived.read(until=70)]
    assert positions == list(range(1, 71))
    assert [record.position for record in await archived.read(after=33, until=60)] == list(
        range(34, 61)
    )
    assert [record.position for record in await archived.read(after=60, until=70)] == list(
        range(61, 71)
    )


async def test_a_reader_that_stops_early_leaves_nothing_behind(archived: Archived) -> None:
    await archived.fill(1, 100)
    await archived.catch_up()
    before = asyncio.all_tasks()
    async with aclosing(archived.archive.read(after=0)) as source:
        await anext(source)
    assert asyncio.all_tasks() == before


async def test_a_log_that_was_made_anew_is_not_archived_over(archived: Archived) -> None:
    await archived.fill(1, 30)
    await archived.catch_up()
    await archived.delete_stream()
    await archived.declare()
    with pytest.raises(ArchiveForked, match="ends at position 0, and its archive at 30"):
        await archived.catch_up()
    await archived.fill(1, 40, text="another history")
    with pytest.raises(ArchiveForked, match="position 30 is another one"):
        await archived.catch_up()
    with pytest.raises(LogMismatch):
        await archived.read(until=40)
    head = await archived.archive.head()
    assert head is not None
    assert head.last == 30


async def test_a_missing_segment_is_named(archived: Archived, bucket: S3Address) -> None:
    await archived.fill(1, 60)
    _, second, *_ = await archived.catch_up()
    s3_client(bucket).delete_object(Bucket=bucket.bucket, Key=second.key)
    with pytest.raises(ArchiveDamaged, match=f"{second.key} is missing"):
        await archived.whole()


async def test_a_segment_that_changed_is_named(archived: Archived, bucket: S3Address) -> None:
    await archived.fill(1, 60)
    _, second, *_ = await archived.catch_up()
    client = s3_client(bucket)
    body = bytearray(client.get_object(Bucket=bucket.bucket, Key=second.key)["Body"].read())
    body[len(body) // 2] ^= 1
    client.put_object(Bucket=bucket.bucket, Key=second.key, Body=bytes(body))
    with pytest.raises(ArchiveDamaged, match=second.key):
        await archived.whole()


async def test_nothing_of_the_archive_looks_like_media(archived: Archived) -> None:
    await archived.fill(1, 30)
    await archived.catch_up()
    keys = [key async for key in archived.bucket.keys("")]
    assert keys
    assert not [key for key in keys if is_object_key(key)]


async def test_a_bucket_that_ignores_conditions_holds_an_archive_as_well(
    nats_url: str, subject_root: str, stream: str, tmp_path: Path
) -> None:
    with rclone_s3(tmp_path) as address:
        async with open_archived(
            nats_url=nats_url, subject_root=subject_root, stream=stream, bucket=address
        ) as archived:
            await archived.fill(1, 60)
            both = await asyncio.gather(
                archived.catch_up(), archived.catch_up(), return_exceptions=True
            )
            # rclone now and then answers 500 to one of two that put the same key at once.
            for failed in (each for each in both if isinstance(each, BaseException)):
                assert isinstance(failed, StoreFailed)
                assert failed.reason is ReasonCode.BUCKET_UNAVAILABLE
            await archived.catch_up()
            assert await archived.whole() == await archived.in_stream()


async def test_an_event_is_known_again_whenever_it_was_stored(archived: Archived) -> None:
    await archived.fill(1, 3)
    before = [record_sha256(record) for record in await archived.in_stream()]
    await archived.delete_stream()
    await archived.declare()
    await archived.fill(1, 3)
    assert [record_sha256(record) for record in await archived.in_stream()] == before
    assert AT.isoformat()[:10].encode() in (await archived.in_stream())[0].data
