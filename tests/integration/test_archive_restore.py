"""The log lost, and brought back from the bucket: by the command, as an operator does it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from shared.archive.errors import ArchiveForked
from shared.archive.manifest import name_of
from shared.archive.restoring import compare, restore
from shared.archive.settings import ArchiveSettings
from shared.event_log.jetstream_api import ask
from shared.event_log.jetstream_restore import forgetful
from shared.event_log.jetstream_stream import StreamDeclaration
from shared.event_log.port import LogMismatch, LogUnavailable
from shared.messaging.jetstream import jetstream_of
from tests.archives import Archived, velro_environment
from tests.programs import VELRO, velro
from velro.stack.seaweedfs import s3_client

if TYPE_CHECKING:
    from shared.contracts.envelope import Envelope
    from velro.stack.seaweedfs import S3Address


@pytest.fixture
def env(nats_url: str, subject_root: str, stream: str, bucket: S3Address) -> dict[str, str]:
    return velro_environment(
        nats_url=nats_url, subject_root=subject_root, stream=stream, bucket=bucket
    )


async def lost(archived: Archived) -> None:
    await archived.delete_stream()
    await archived.declare()


async def brought_back(archived: Archived, *, after: int = 0) -> int:
    async with aclosing(
        restore(archived.connection, archived.stream, archived.archive, after=after)
    ) as reached:
        return [position async for position in reached][-1]


async def compared_up_to(archived: Archived) -> int:
    async with aclosing(compare(archived.log, archived.archive)) as compared:
        return [so_far.position async for so_far in compared][-1]


async def test_a_lost_log_comes_back_with_the_same_positions_ids_headers_and_order(
    archived: Archived, env: dict[str, str]
) -> None:
    await archived.fill(1, 120)
    before = [(r.position, r.subject, r.headers, r.data) for r in await archived.in_stream()]
    await archived.catch_up()
    await archived.delete_stream()
    code, out = await velro(env, "restore")
    assert code == 0, out
    assert "120 events are back at their positions" in out
    after = [(r.position, r.subject, r.headers, r.data) for r in await archived.in_stream()]
    assert after == before


async def test_what_was_brought_back_is_known_by_its_id_and_appended_to_as_before(
    archived: Archived,
) -> None:
    await archived.fill(1, 20)
    await archived.catch_up()
    await lost(archived)
    assert await brought_back(archived) == 20
    history = await archived.log.load("generation", "g7")
    assert history.version == 7
    (event,) = history.events
    again = await archived.log.append(
        "generation", "g7", [event.envelope], expected=history.version
    )
    assert (again.position, again.duplicate) == (7, True)
    await archived.fill(21, 21)
    assert await archived.log.last_position() == 21


async def written_again(archived: Archived, event: Envelope, *, position: int) -> None:
    """A second time, as soon as the server has forgotten the first."""
    async with asyncio.timeout(20):
        while True:
            done = await archived.log.append("generation", event.subject, [event], expected=None)
            if not done.duplicate:
                break
    assert done.position == position


async def test_an_id_that_the_log_holds_more_than_once_comes_back_wherever_it_was(
    archived: Archived, env: dict[str, str]
) -> None:
    await archived.fill(1, 30)
    (event,) = (await archived.log.load("generation", "g7")).events
    async with forgetful(archived.connection, archived.stream):
        await written_again(archived, event.envelope, position=31)
        await written_again(archived, event.envelope, position=32)
    await archived.fill(33, 90)
    before = [(r.position, r.subject, r.headers, r.data) for r in await archived.in_stream()]
    await archived.catch_up()
    await archived.delete_stream()
    code, out = await velro(env, "restore")
    assert code == 0, out
    after = [(r.position, r.subject, r.headers, r.data) for r in await archived.in_stream()]
    assert after == before
    # The server remembers ids as long as before.
    info = await ask(
        archived.connection, f"$JS.API.STREAM.INFO.{archived.stream}", None, timeout_s=5
    )
    assert info["config"]["duplicate_window"] == StreamDeclaration().duplicate_window_s * 1e9


async def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    archived: Archived, env: dict[str, str]
) -> None:
    await archived.fill(1, 30)
    await archived.catch_up()
    await jetstream_of(archived.connection).delete_stream(archived.stream)
    code, out = await velro(env, "restore", "--dry-run")
    assert code == 0, out
    assert "30 are to be brought back, from position 1 on" in out
    with pytest.raises(LogUnavailable, match="stream not found"):  # nor is it made
        await archived.log.last_position()


async def test_an_interrupted_restore_goes_on_where_it_was(
    archived: Archived, env: dict[str, str]
) -> None:
    await archived.fill(1, 60)
    await archived.catch_up()
    whole = [(r.position, r.headers, r.data) for r in await archived.in_stream()]
    await lost(archived)
    async with aclosing(
        restore(archived.connection, archived.stream, archived.archive, after=0)
    ) as reached:
        stopped_at = await anext(reached)
    assert 0 < stopped_at < 60
    code, out = await velro(env, "restore")
    assert code == 0, out
    assert [(r.position, r.headers, r.data) for r in await archived.in_stream()] == whole


async def test_a_killed_restore_goes_on_where_it_was(
    archived: Archived, env: dict[str, str]
) -> None:
    await archived.fill(1, 40)
    # One event a segment: 40 fetches, between which the process is killed.
    fine = ArchiveSettings(segment_bytes=1)
    archiver = archived.archiver
    archiver.settings = fine
    assert len([entry async for entry in archiver.catch_up()]) == 40
    await lost(archived)
    process = await asyncio.create_subprocess_exec(VELRO, "restore", env=env)
    async with asyncio.timeout(30):
        # What another process has done is known by the log's end alone.
        while await archived.log.last_position() < 5:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.001)
    process.kill()
    await process.wait()
    assert await archived.log.last_position() < 40
    code, out = await velro(env, "restore")
    assert code == 0, out
    assert await compared_up_to(archived) == 40


async def test_a_restore_of_what_is_there_changes_nothing(
    archived: Archived, env: dict[str, str]
) -> None:
    await archived.fill(1, 10)
    await archived.catch_up()
    await archived.fill(11, 12)
    code, out = await velro(env, "restore")
    assert code == 0, out
    assert "nothing to do" in out
    assert await archived.log.last_position() == 12


async def test_a_log_with_another_history_is_left_alone(
    archived: Archived, env: dict[str, str]
) -> None:
    await archived.fill(1, 30)
    await archived.catch_up()
    await lost(archived)
    await archived.fill(1, 3)
    await archived.fill(4, 5, text="another history")
    code, out = await velro(env, "restore")
    assert code != 0
    assert "from position 4 on the log is not the one that was archived" in out
    assert await archived.log.last_position() == 5


async def test_somebody_who_writes_meanwhile_is_found_out(archived: Archived) -> None:
    await archived.fill(1, 60)
    await archived.catch_up()
    await lost(archived)
    await archived.fill(1, 1, text="a service that was not stopped")
    with pytest.raises(LogMismatch, match="somebody else writes"):
        await brought_back(archived)
    with pytest.raises(ArchiveForked):
        await compared_up_to(archived)


async def test_without_an_archive_nothing_is_made(archived: Archived, env: dict[str, str]) -> None:
    await archived.delete_stream()
    code, out = await velro(env, "restore")
    assert code != 0
    assert "there is no archive under velro-log/" in out


async def test_the_archive_is_listed_verified_and_printed(
    archived: Archived, env: dict[str, str]
) -> None:
    await archived.fill(1, 60)
    entries = await archived.catch_up()
    await archived.fill(61, 63)
    code, out = await velro(env, "archive", "ls")
    assert code == 0, out
    assert f"{len(entries)} segments, up to position 60, 3 behind the log" in out
    code, out = await velro(env, "archive", "verify", "--against-log")
    assert code == 0, out
    assert "60 events" in out
    assert "same events up to position 60" in out
    code, out = await velro(env, "archive", "cat", "--from", "59")
    assert [line[:15] for line in out.splitlines()] == ['{"position": 59', '{"position": 60']


async def test_verifying_names_a_segment_that_belongs_to_no_entry(
    archived: Archived, env: dict[str, str]
) -> None:
    # As an archiver leaves it that ends between the segment and its entry, where another one then
    # writes a longer segment.
    await archived.fill(1, 20)
    (left,) = await archived.catch_up(everything=True)
    await archived.bucket.delete(f"{archived.archive.manifest}{name_of(left)}")
    await archived.fill(21, 30)
    records = [each async for batch in archived.log.read_whole(after=0, until=30) for each in batch]
    await archived.archive.write(records, after=None)
    code, out = await velro(env, "archive", "verify", "--against-log")
    assert code == 0, out
    assert "every segment is as it was written: 30 events" in out
    assert "1 segment(s) are named by no entry: " in out
    assert out.count(left.key) == 1


async def test_verifying_names_all_that_is_damaged_and_a_way_that_mends_it(
    archived: Archived, env: dict[str, str], bucket: S3Address
) -> None:
    await archived.fill(1, 100)
    first, second, third, fourth, *_ = entries = await archived.catch_up()
    await archived.bucket.delete(second.key)
    client = s3_client(bucket)
    stored = client.get_object(Bucket=bucket.bucket, Key=fourth.key)
    body = bytearray(stored["Body"].read())
    body[len(body) // 2] ^= 1
    client.put_object(
        Bucket=bucket.bucket, Key=fourth.key, Body=bytes(body), Metadata=stored["Metadata"]
    )
    code, out = await velro(env, "archive", "verify")
    assert code == 1
    assert f"{second.key} is missing from the bucket" in out
    assert f"{fourth.key}: a segment" in out
    assert f"{100 - second.count - fourth.count} events are as they were written" in out
    assert first.key not in out
    assert third.key not in out
    assert f"the stream still has the events {second.first} to 100" in out
    assert f"begins with {second.first:020d} or a higher number" in out

    # As it was told:
    await archived.bucket.delete(fourth.key)
    manifest = [key async for key in archived.bucket.keys(archived.archive.manifest)]
    for key in sorted(manifest, reverse=True):
        if key.removeprefix(archived.archive.manifest)[:20] >= f"{second.first:020d}":
            await archived.bucket.delete(key)
    assert [entry.last for entry in await archived.catch_up()][-1] == 100
    assert len([entry async for entry in archived.archive.entries()]) == len(entries)
    code, out = await velro(env, "archive", "verify", "--against-log")
    assert code == 0, out
    assert "every segment is as it was written: 100 events" in out


async def test_no_way_is_told_that_would_lose_what_the_stream_no_longer_has(
    archived: Archived, env: dict[str, str], bucket: S3Address
) -> None:
    await archived.fill(1, 60)
    _, second, *_ = await archived.catch_up()
    await archived.bucket.delete(second.key)
    await lost(archived)
    code, out = await velro(env, "archive", "verify")
    assert code == 1
    assert "cannot be written anew: the stream lacks" in out
    link = (await archived.archive.chain())[second.number - 1]
    client = s3_client(bucket)
    client.delete_object(Bucket=bucket.bucket, Key=f"{archived.archive.manifest}{link.name}")
    code, out = await velro(env, "archive", "verify")
    assert code == 1
    assert f"the entry before position {second.last + 1} is missing, as is a sound segment" in out
    assert "cannot be written anew: the stream lacks" in out


async def test_verifying_reads_behind_an_entry_that_is_missing_and_names_what_mends_it(
    archived: Archived, env: dict[str, str], bucket: S3Address
) -> None:
    await archived.fill(1, 100)
    _, second, third, *_ = await archived.catch_up(everything=True)
    await archived.bucket.delete(f"{archived.archive.manifest}{name_of(second)}")
    await archived.bucket.delete(third.key)
    code, out = await velro(env, "archive", "verify")
    assert code == 1
    assert f"the entry before position {third.first} is missing\n" in out
    assert f"{third.key} is missing from the bucket" in out
    assert f"{100 - second.count - third.count} events are as they were written" in out
    client = s3_client(bucket)
    client.put_object(Bucket=bucket.bucket, Key=third.key, Body=b"no segment")
    segment = client.get_object(Bucket=bucket.bucket, Key=second.key)["Body"].read()
    client.delete_object(Bucket=bucket.bucket, Key=second.key)
    code, out = await velro(env, "archive", "verify")
    assert code == 1
    assert "as is a sound segment for it" in out
    assert f"{third.key}: a segment cannot be unpacked" in out
    client.put_object(Bucket=bucket.bucket, Key=second.key, Body=segment)
    client.close()


async def test_damaged_and_missing_entries_are_mended_as_verifying_tells(
    archived: Archived, env: dict[str, str], bucket: S3Address
) -> None:
    await archived.fill(1, 100)
    first, second, third, *_ = await archived.catch_up(everything=True)
    await archived.bucket.delete(f"{archived.archive.manifest}{name_of(first)}")
    damaged = f"{archived.archive.manifest}{name_of(third)}"
    s3_client(bucket).put_object(Bucket=bucket.bucket, Key=damaged, Body=b"{}")
    code, out = await velro(env, "archive", "verify")
    assert code == 1
    assert f"the entry before position {second.first} is missing\n" in out
    assert f"manifest entry {name_of(third)} cannot be read" in out
    assert f"{100 - first.count - third.count} events are as they were written" in out
    assert "Delete the entries named above that are there" in out
    code, out = await velro(env, "archive", "ls")
    assert code == 1
    assert "0 segments, up to position 0, 100 behind the log" in out
    assert f"which comes before position {second.first}, is missing" in out
    code, out = await velro(env, "archive", "cat", "--from", "100")
    assert (code, out[:16]) == (0, '{"position": 100')

    # As it was told:
    await archived.bucket.delete(damaged)
    assert await archived.catch_up(everything=True) == []
    code, out = await velro(env, "archive", "verify", "--against-log")
    assert code == 0, out
    assert "every segment is as it was written: 100 events" in out
