"""A real log and its archive in a real bucket."""

from __future__ import annotations

import os
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from shared.archive.archive import Archive
from shared.archive.archived_log import ArchivedLog
from shared.archive.settings import ArchiveSettings
from shared.archive.trimmed import TrimmedIndex
from shared.contracts.envelope import Context, seal
from shared.contracts.generation_events import GenerationCancelled
from shared.contracts.reasons import ReasonCode
from shared.contracts.subjects import Subjects
from shared.event_log.jetstream import JetStreamLog
from shared.event_log.jetstream_api import ask
from shared.event_log.jetstream_stream import StreamDeclaration, ensure_stream
from shared.event_log.jetstream_trim import TrimmableStream
from shared.messaging.connection import connected
from shared.object_store.port import StoreFailed
from shared.object_store.s3 import s3_object_store
from storage_svc.application.archiving import Archiver
from storage_svc.application.trimming import Trimmer
from tests.object_stores import settings_for

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from nats.aio.client import Client

    from shared.archive.manifest import Entry
    from shared.contracts.facts import Family
    from shared.event_log.port import EventLog, RawRecord, WholeRecord
    from shared.object_store.s3 import S3ObjectStore
    from storage_svc.application.trimming import Cut
    from velro.stack.seaweedfs import S3Address

AT = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
# A segment after 20 events or so: enough for a chain.
SETTINGS = ArchiveSettings(segment_bytes=10_000, segment_age_s=3600)


@dataclass(frozen=True)
class Archived:
    connection: Client
    stream: str
    log: JetStreamLog
    bucket: S3ObjectStore
    archive: Archive

    @property
    def archiver(self) -> Archiver:
        return Archiver(self.log, self.archive, SETTINGS, clock=lambda: datetime.now(UTC))

    @property
    def archived_log(self) -> ArchivedLog:
        return ArchivedLog(self.log, self.archive)

    @property
    def index(self) -> TrimmedIndex:
        subjects = Subjects(self.stream.lower())
        return TrimmedIndex(self.connection, subjects, self.stream, look_again_s=0.01)

    @property
    def whole_log(self) -> ArchivedLog:
        """As the services have it."""
        return ArchivedLog(self.log, self.archive, trimmed=self.index, from_archive=False)

    def trimmer(self, *, after: timedelta = timedelta(days=1)) -> Trimmer:
        return Trimmer(
            self.log,
            self.whole_log,
            self.archive,
            self.index,
            TrimmableStream(self.connection, self.stream),
            Subjects(self.stream.lower()),
            after,
            clock=lambda: datetime.now(UTC),
        )

    async def trim(self, *, after: timedelta = timedelta(days=1)) -> Cut:
        """Let go all that may; the last cut, with the reason."""
        trimmer = self.trimmer(after=after)
        async with aclosing(trimmer.cuts()) as cuts:
            async for cut in cuts:
                if cut.events:
                    await trimmer.carry_out(cut)
                if cut.stays is not None:
                    return cut
        raise AssertionError("no cut said why it was the last one")

    async def declare(self) -> None:
        subjects = Subjects(self.stream.lower())
        await ensure_stream(self.connection, StreamDeclaration(name=self.stream, subjects=subjects))

    async def delete_stream(self) -> None:
        await ask(self.connection, f"$JS.API.STREAM.DELETE.{self.stream}", None, timeout_s=5)

    async def fill(self, first: int, last: int, *, text: str = "") -> None:
        """One event a generation, so that the log ends at `last`."""
        for number in range(first, last + 1):
            envelope = seal(
                GenerationCancelled(reason=text),
                generation_id=f"g{number}",
                at=AT,
                context=Context(source="tests"),
            )
            await self.log.append("generation", f"g{number}", [envelope], expected=None)

    async def catch_up(self, *, everything: bool = True) -> list[Entry]:
        return [entry async for entry in self.archiver.catch_up(everything=everything)]

    async def whole(self) -> list[WholeRecord]:
        async with aclosing(self.archive.read_whole(after=0)) as source:
            return [record async for batch in source for record in batch]

    async def in_stream(self) -> list[WholeRecord]:
        end = await self.log.last_position()
        async with aclosing(self.log.read_whole(after=0, until=end)) as source:
            return [record async for batch in source for record in batch]

    async def read(self, *, after: int = 0, until: int) -> list[RawRecord]:
        async with aclosing(self.archived_log.read(after=after, until=until)) as source:
            return [record async for batch in source for record in batch]


async def positions_of(log: EventLog, family: Family, generation_id: str) -> list[int]:
    return [event.position for event in (await log.load(family, generation_id)).events]


class BucketAway:
    """An archive whose bucket gives no answer."""

    async def head(self) -> Entry | None:
        raise StoreFailed(ReasonCode.BUCKET_UNAVAILABLE, "no answer")

    async def read(
        self, *, after: int, until: int | None = None
    ) -> AsyncGenerator[Sequence[RawRecord], None]:
        raise StoreFailed(ReasonCode.BUCKET_UNAVAILABLE, f"no answer, {after}, {until}")
        yield ()

    async def records_at(self, positions: Sequence[int]) -> list[RawRecord]:
        raise StoreFailed(ReasonCode.BUCKET_UNAVAILABLE, f"no answer, {positions}")


def velro_environment(
    *, nats_url: str, subject_root: str, stream: str, bucket: S3Address
) -> dict[str, str]:
    """What a command of `velro` needs to find this log and its archive."""
    return {
        "PATH": os.environ["PATH"],
        "COLUMNS": "200",
        "VELRO_NATS_URL": nats_url,
        "VELRO_STREAM": stream,
        "VELRO_SUBJECT_ROOT": subject_root,
        "VELRO_S3_ENDPOINT_URL": bucket.endpoint_url,
        "VELRO_S3_ACCESS_KEY": bucket.access_key,
        "VELRO_S3_SECRET_KEY": bucket.secret_key,
        "VELRO_S3_BUCKET": bucket.bucket,
    }


@asynccontextmanager
async def open_archived(
    *, nats_url: str, subject_root: str, stream: str, bucket: S3Address
) -> AsyncGenerator[Archived]:
    """A log of its own, whose stream exists, and an empty archive."""
    async with (
        connected(nats_url, name="tests") as connection,
        s3_object_store(settings_for(bucket)) as store,
    ):
        log = JetStreamLog(connection, Subjects(subject_root), stream=stream)
        archived = Archived(connection, stream, log, store, Archive(store, stream, SETTINGS))
        await archived.declare()
        yield archived
