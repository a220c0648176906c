"""The only place where the parts of the storage service are put together."""

from __future__ import annotations

import os
import random
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from shared.archive.archive import Archive
from shared.archive.opening import archived_log
from shared.archive.trimmed import TrimmedIndex
from shared.event_log.jetstream import JetStreamLog
from shared.event_log.jetstream_stream import StreamDeclaration, ensure_stream
from shared.event_log.jetstream_trim import TrimmableStream
from shared.media.copier import media_copier
from shared.messaging.access import NatsAccess
from shared.messaging.connection import connected
from shared.object_store.attended import attended_bucket
from shared.object_store.s3 import s3_object_store
from shared.postgres.connecting import POSTGRES_AWAY, away, close, connect, open_pool
from shared.projection.batch import Decoding
from shared.projection.errors import NotReached
from shared.projection.recognised_log import RecognisedLog
from shared.projection.runner import Projector, ProjectorTiming
from shared.projection.tables import ensure
from shared.projection.waiting import PositionWatch
from storage_svc.adapters.postgres_backlog import PostgresBacklog
from storage_svc.adapters.postgres_report import PostgresReport
from storage_svc.application.archiving import Archiver
from storage_svc.application.backlog import BacklogUnavailable
from storage_svc.application.recording import Recorder
from storage_svc.application.retry_outputs import RetryOutputs
from storage_svc.application.store_output import StoreOutput
from storage_svc.application.trimming import Trimmer
from storage_svc.application.workers import Workers, WorkerSettings
from storage_svc.domain.policies import Refetching
from storage_svc.read_model.model import NAME, BacklogModel

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from asyncpg import Pool, Record

    from shared.archive.archived_log import ArchivedLog
    from shared.archive.settings import ArchiveSettings
    from shared.messaging.deliveries import DeliveringClient
    from shared.object_store.settings import S3Settings
    from shared.settings import LogSettings
    from storage_svc.application.backlog import Lease, OutputRef
    from storage_svc.application.store_output import Outcome
    from storage_svc.read_model.rows import Backlog
    from storage_svc.settings import CopySettings, StorageSettings

SOURCE = "velro/storage_svc"

# While the read model gets on it is waited for; after so long without a move it is not.
_LEVEL_STALL_S = 20.0


def now() -> datetime:
    """The service's clock."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Service:
    """The parts, connected."""

    settings: StorageSettings
    owner: str
    connection: DeliveringClient
    log: ArchivedLog
    pool: Pool[Record]
    backlog: PostgresBacklog
    report: PostgresReport
    recorder: Recorder
    projector: Projector[Backlog]
    watch: PositionWatch

    @classmethod
    @asynccontextmanager
    async def assembled(cls, settings: StorageSettings) -> AsyncGenerator[Service]:
        """Put the parts together and take them down in turn. Nothing projects or copies yet.

        Raises:
            BrokerUnavailable, LogUnavailable: no NATS.
            LogMismatch: the stream has other settings.
        """
        dsn = settings.storage_postgres_dsn.get_secret_value()
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(
                connected(NatsAccess.of(settings), name="velro storage_svc")
            )
            await ensure_stream(connection, StreamDeclaration.of(settings))
            log = await stack.enter_async_context(archived_log(connection, settings))
            pool = await open_pool(
                dsn, schema=NAME, application_name="velro storage_svc", max_size=8
            )
            stack.push_async_callback(pool.close)
            projector = Projector(
                dsn,
                log,
                BacklogModel(),
                Decoding(settings.subjects),
                timing=ProjectorTiming(
                    attempts=settings.projector_attempts,
                    fold_limit_s=settings.projector_fold_limit_s,
                ),
                whole=log.see_that_it_is_whole,
            )
            recognised = RecognisedLog(log, projector.other_log)
            yield cls(
                settings=settings,
                # Unlike any other process there is or was, also after a restart.
                owner=f"{socket.gethostname()}-{os.getpid()}-{random.getrandbits(32):08x}",
                connection=connection,
                log=log,
                pool=pool,
                backlog=PostgresBacklog(pool),
                report=PostgresReport(pool),
                recorder=Recorder(recognised, clock=now, source=SOURCE),
                projector=projector,
                watch=PositionWatch(dsn, NAME),
            )

    def worker_settings(self) -> WorkerSettings:
        """How this process shares work with others."""
        return WorkerSettings(
            owner=self.owner,
            concurrency=self.settings.storage_workers,
            lease_s=self.settings.storage_lease_s,
            drain_s=self.settings.drain_s,
        )

    def workers(
        self,
        store: Callable[[OutputRef], Awaitable[Outcome]],
        ended: Callable[[Lease, Outcome | None], None] = lambda _lease, _outcome: None,
    ) -> Workers:
        """Workers on this service's backlog."""
        return Workers(
            backlog=self.backlog,
            store=store,
            clock=now,
            jitter=random.random,
            settings=self.worker_settings(),
            ended=ended,
        )

    @asynccontextmanager
    async def storing(
        self, settings: CopySettings, *, staying: bool = False
    ) -> AsyncGenerator[StoreOutput]:
        """The use case, with its connections to the sources and the bucket.

        Args:
            settings: of both.
            staying: whether this process is a service, and the bucket is worth getting to know.

        Raises:
            KeysUnreadable: the settings name files of keys, which hold none.
        """
        bucket_settings = settings.bucket
        async with (
            attended_bucket(bucket_settings, sweeping=True)
            if staying
            else s3_object_store(bucket_settings) as bucket,
            media_copier(settings.media, bucket) as copier,
        ):
            yield StoreOutput(
                copier,
                self.recorder,
                clock=now,
                jitter=random.random,
                refetching=Refetching(
                    self.settings.refetch_max_requests,
                    timedelta(seconds=self.settings.refetch_window_s),
                ),
            )

    def retrying(self, store: StoreOutput) -> RetryOutputs:
        """The use case that copies what a person names."""
        return RetryOutputs(
            self.recorder,
            self.backlog,
            store,
            now,
            owner=self.owner,
            lease_s=self.settings.storage_lease_s,
        )

    @asynccontextmanager
    async def projecting(self) -> AsyncGenerator[None]:
        """Keep the backlog as the log says, or stand by while another process does.

        Raises:
            SchemaOutdated: the tables are those of another version.
            BacklogUnavailable: no Postgres.
        """
        dsn = self.settings.storage_postgres_dsn.get_secret_value()
        try:
            connection = await connect(dsn, schema=NAME, application_name="velro storage_svc")
            try:
                await ensure(connection, NAME, self.projector.model)
            finally:
                await close(connection)
        except POSTGRES_AWAY as error:
            raise BacklogUnavailable(away(error)) from error
        async with self.projector.running(), self.watch.running():
            yield

    async def level(self) -> None:
        """Wait until the backlog knows everything that the log knows now.

        Raises:
            NotReached: it stopped getting on before.
        """
        end = await self.log.last_position()
        while True:
            before = self.watch.position
            try:
                await self.watch.wait_for(end, timeout_s=_LEVEL_STALL_S)
            except NotReached:
                if self.watch.position > before:
                    continue
                health = await self.projector.health()
                raise NotReached(
                    f"the backlog stays at position {before} of {end}: "
                    f"the projector is {health.state.value} ({health.reason or 'no reason known'})"
                ) from None
            return


@asynccontextmanager
async def archiver_of(
    settings: StorageSettings, bucket: S3Settings, archive: ArchiveSettings
) -> AsyncGenerator[Archiver]:
    """Who writes the log to the bucket, with connections of its own.

    Raises:
        BrokerUnavailable: no NATS.
        KeysUnreadable: the settings name files of keys, which hold none.
    """
    async with (
        connected(NatsAccess.of(settings), name="velro archiver") as connection,
        s3_object_store(bucket) as store,
    ):
        log = JetStreamLog(connection, settings.subjects, stream=settings.stream)
        yield Archiver(log, Archive(store, settings.stream, archive), archive, clock=now)


@asynccontextmanager
async def trimmer_of(
    settings: StorageSettings, bucket: S3Settings, archive: ArchiveSettings, *, after: timedelta
) -> AsyncGenerator[Trimmer]:
    """Who lets settled generations leave the stream, with connections of its own.

    Raises:
        BrokerUnavailable: no NATS.
        KeysUnreadable: the settings name files of keys, which hold none.
    """
    async with (
        connected(NatsAccess.of(settings), name="velro trimmer") as connection,
        archived_log(connection, settings) as whole,
        s3_object_store(bucket) as store,
    ):
        yield Trimmer(
            JetStreamLog(connection, settings.subjects, stream=settings.stream),
            whole,
            Archive(store, settings.stream, archive),
            TrimmedIndex(connection, settings.subjects, settings.stream),
            TrimmableStream(connection, settings.stream),
            settings.subjects,
            after,
            clock=now,
        )


@asynccontextmanager
async def log_of(settings: LogSettings) -> AsyncGenerator[ArchivedLog]:
    """The log alone, for who only appends to it; its stream is made where there is none.

    Raises:
        BrokerUnavailable, LogUnavailable: no NATS.
        LogMismatch: the stream has other settings.
    """
    async with connected(NatsAccess.of(settings), name="velro storage_svc") as connection:
        await ensure_stream(connection, StreamDeclaration.of(settings))
        async with archived_log(connection, settings) as log:
            yield log
