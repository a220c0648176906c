"""What the doctor says of the log's archive, when it should."""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from shared.archive.archive import Archive
from shared.archive.settings import ArchiveSettings
from shared.archive.trimmed import TrimmedIndex
from shared.event_log.jetstream_stream import StreamDeclaration, ensure_stream
from shared.event_log.jetstream_trim import TrimmableStream
from shared.messaging.jetstream import jetstream_of
from shared.object_store.s3 import s3_object_store
from shared.settings import LogSettings
from storage_svc.application.archiving import Archiver
from tests.doctoring import examined
from tests.generation_events import REQUESTED, STARTED
from tests.object_stores import settings_for
from tests.projecting import World, world
from velro.doctor.archive import archive_part
from velro.doctor.findings import Level

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shared.contracts.subjects import Subjects
    from velro.doctor.findings import Finding
    from velro.stack.seaweedfs import S3Address


@pytest.fixture
async def here(
    nats_url: str, stream: str, subjects: Subjects, database: str
) -> AsyncGenerator[World]:
    async with world(nats_url, stream, subjects, database) as made:
        yield made


async def archived(here: World, bucket: S3Address) -> None:
    """Everything that is in the log now."""
    settings = ArchiveSettings()
    async with s3_object_store(settings_for(bucket)) as store:
        archive = Archive(store, here.stream, settings)
        archiver = Archiver(here.log, archive, settings, clock=lambda: datetime.now(UTC))
        async with aclosing(archiver.catch_up(everything=True)) as written:
            async for _ in written:
                pass


async def looked_at(
    here: World, nats_url: str, bucket: S3Address, settings: ArchiveSettings | None = None
) -> dict[str, Finding]:
    log = LogSettings(nats_url=nats_url, stream=here.stream, subject_root=here.subjects.root)
    return await examined(archive_part(log, settings_for(bucket), settings or ArchiveSettings()))


async def test_a_log_that_is_archived_and_one_that_is_young_are_green(
    here: World, nats_url: str, bucket: S3Address
) -> None:
    await here.say("g1", REQUESTED)
    young = await looked_at(here, nats_url, bucket)
    await archived(here, bucket)
    whole = await looked_at(here, nats_url, bucket)
    for found in (young, whole):
        assert {finding.level for finding in found.values()} == {Level.GREEN}
    assert "1 events are not archived" in young["age"].found
    assert "all 1 events are archived" in whole["age"].found


async def test_archiving_that_is_turned_off_is_yellow(
    here: World, nats_url: str, bucket: S3Address
) -> None:
    await here.say("g1", REQUESTED)
    off = ArchiveSettings(enabled=False)
    found = (await looked_at(here, nats_url, bucket, off))["age"]
    assert found.level is Level.YELLOW
    assert "VELRO_ARCHIVE_ENABLED" in found.advice


async def test_a_log_that_is_shorter_or_another_than_its_archive_is_red_with_what_to_do(
    here: World, nats_url: str, bucket: S3Address
) -> None:
    await here.say("g1", REQUESTED, STARTED)
    await archived(here, bucket)
    await jetstream_of(here.nats).delete_stream(here.stream)
    await ensure_stream(here.nats, StreamDeclaration(name=here.stream, subjects=here.subjects))
    shorter = (await looked_at(here, nats_url, bucket))["log"]
    await here.say("g2", REQUESTED, STARTED)
    other = (await looked_at(here, nats_url, bucket))["log"]
    assert (shorter.level, other.level) == (Level.RED, Level.RED)
    assert "ends at position 0" in shorter.found
    assert "another one" in other.found
    assert "velro restore" in other.advice


async def test_a_log_whose_beginning_is_in_no_archive_is_red(
    here: World, nats_url: str, bucket: S3Address
) -> None:
    for number in range(4):
        await here.say(f"g{number}", REQUESTED)
    await archived(here, bucket)
    await TrimmableStream(here.nats, here.stream).purge_until(2)
    found = (await looked_at(here, nats_url, bucket))["log"]
    assert found.level is Level.RED
    assert "taken away in another way" in found.found
    assert "velro restore" in found.advice
    index = TrimmedIndex(here.nats, here.subjects, here.stream, look_again_s=0.01)
    await index.add({}, through=2)
    found = (await looked_at(here, nats_url, bucket))["log"]
    assert found.level is Level.GREEN
    assert "before 3 are in the archive alone" in found.found
    async with s3_object_store(settings_for(bucket)) as store:
        root = Archive(store, here.stream, ArchiveSettings()).root
        for key in [key async for key in store.keys(f"{root}/")]:
            await store.delete(key)
    found = (await looked_at(here, nats_url, bucket))["log"]
    assert found.level is Level.RED
    assert "begins at position 3, and the archive ends at 0" in found.found
