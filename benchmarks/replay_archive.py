"""The same rebuild from the log's archive in the bucket: no NATS in between."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks.figures import Figure
from benchmarks.nats import nats_with_log
from benchmarks.replay_million import PROCESSES, filled, read_and_dropped, replayed
from shared.archive.archive import Archive
from shared.archive.archived_log import ArchivedLog
from shared.archive.settings import ArchiveSettings
from shared.contracts.subjects import Subjects
from shared.event_log.jetstream import JetStreamLog
from shared.object_store.s3 import s3_object_store
from shared.object_store.settings import S3Settings
from storage_svc.application.archiving import Archiver
from velro.stack import ports
from velro.stack.postgres import PostgresServer
from velro.stack.seaweedfs import SeaweedServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from shared.object_store.port import ObjectStore

_EVENTS: Final = 1_000_000


async def measure(room: Path) -> list[Figure]:
    """Events a second from the bucket into empty tables, and from the stream in the same run."""
    chosen = ports.choose({"postgres": 25432}, room / "postgres-ports.json")
    server = PostgresServer(room, port=chosen["postgres"], owned=True)
    server.initialise()
    server.process.start()
    try:
        server.ensure_databases()
        dsn = server.dsn("velro_generation", role="velro_generation")
        async with nats_with_log(room) as nats, _bucket(room) as store:
            log = JetStreamLog(nats, Subjects())
            await filled(nats, log, _EVENTS)
            archive, settings = Archive(store, "VELRO", ArchiveSettings()), ArchiveSettings()
            archiver = Archiver(log, archive, settings, clock=partial(datetime.now, UTC))
            async with aclosing(archiver.catch_up(everything=True)) as written:
                async for _ in written:
                    pass
            archived = ArchivedLog(log, archive)
            alone = await replayed(dsn, archived, _EVENTS, processes=1)
            from_stream = await replayed(dsn, log, _EVENTS, processes=PROCESSES)
            from_archive = await replayed(dsn, archived, _EVENTS, processes=PROCESSES)
            beside = {
                "by one process": round(alone.events_per_s),
                "the same from the stream": round(from_stream.events_per_s),
                "the archive read and dropped": await read_and_dropped(archived),
            }
    finally:
        server.process.stop()
    return [Figure("replay_archive", "events/s", round(from_archive.events_per_s), beside)]


@asynccontextmanager
async def _bucket(room: Path) -> AsyncGenerator[ObjectStore]:
    """A bucket on a server of the benchmark's own."""
    wished = ("s3", "master", "volume", "filer", "admin")
    chosen = ports.choose(dict.fromkeys(wished), room / "seaweed-ports.json")
    server = SeaweedServer(
        room,
        s3_port=chosen["s3"],
        master_port=chosen["master"],
        volume_port=chosen["volume"],
        filer_port=chosen["filer"],
        admin_port=chosen["admin"],
        owned=True,
    )
    server.process.start()
    try:
        async with s3_object_store(S3Settings.model_validate(asdict(server.address))) as store:
            await store.learn()
            yield store
    finally:
        server.process.kill()
