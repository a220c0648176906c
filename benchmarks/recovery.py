"""How long it takes to serve again: from an empty Postgres, and from an empty NATS.

Servers, services and commands are those that an operator has, on data of their own. Serving means
that both services say that they are ready, which they do when their tables are level with the log.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Final

from benchmarks.figures import Figure
from benchmarks.filling import fill
from benchmarks.histories import events
from shared.archive.archive import Archive
from shared.archive.settings import ArchiveSettings
from shared.event_log.jetstream import JetStreamLog
from shared.event_log.jetstream_stream import StreamDeclaration, ensure_stream
from shared.messaging.access import NatsAccess
from shared.messaging.connection import connected
from shared.object_store.s3 import s3_object_store
from shared.object_store.settings import S3Settings
from shared.settings import LogSettings
from storage_svc.application.archiving import Archiver
from velro.local import Local
from velro.stack.nats import program

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from nats.aio.client import Client

_EVENTS: Final = int(os.environ.get("VELRO_BENCH_RECOVERY_EVENTS", "1000000"))
_DEADLINE_S: Final = 900.0


async def measure(room: Path) -> list[Figure]:
    """Minutes for each of the two, of a million events, fsync on."""
    local = Local(room / "local", owned=True)
    local.stack.start()
    try:
        await _filled(local)
        replayed = await _timed(local, "replay", "generation", "storage")
        from_postgres = replayed + await _serving(local)
        # What the services have said since is archived too: what is not, no restore brings back.
        async with _log_and_archiver(local) as (_, archiver):
            await _archived(archiver)
        local.stack.nats.stop()
        shutil.rmtree(local.stack.directory / "nats")
        local.stack.nats.start()
        restored = await _timed(local, "restore")
        from_nats = restored + await _serving(local)
    finally:
        local.stop()
        local.stack.stop()
    return [
        Figure(
            "recovery_postgres",
            "min",
            round(from_postgres / 60, 2),
            {"of which velro replay of both": round(replayed / 60, 2)},
        ),
        Figure(
            "recovery_nats",
            "min",
            round(from_nats / 60, 2),
            {"of which velro restore": round(restored / 60, 2)},
        ),
    ]


async def _filled(local: Local) -> None:
    """A log of so many events, all of it archived."""
    async with _log_and_archiver(local) as (nats, archiver):
        await ensure_stream(nats, StreamDeclaration())
        await fill(nats, events(_EVENTS))
        if await archiver.log.last_position() != _EVENTS:
            raise AssertionError("the log does not hold the events once each")
        await _archived(archiver)


@asynccontextmanager
async def _log_and_archiver(local: Local) -> AsyncGenerator[tuple[Client, Archiver]]:
    settings = LogSettings(nats_url=local.stack.addresses.nats_url)
    bucket = S3Settings.model_validate(asdict(local.stack.addresses.s3))
    archive = ArchiveSettings()
    async with (
        connected(NatsAccess.of(settings), name="benchmark") as nats,
        s3_object_store(bucket) as store,
    ):
        log = JetStreamLog(nats, settings.subjects, stream=settings.stream)
        kept = Archive(store, settings.stream, archive)
        yield nats, Archiver(log, kept, archive, clock=lambda: datetime.now(UTC))


async def _archived(archiver: Archiver) -> None:
    async with aclosing(archiver.catch_up(everything=True)) as written:
        async for _ in written:
            pass


async def _timed(local: Local, *words: str) -> float:
    """How long a command of `velro` takes to end well."""
    begin = perf_counter()
    process = await asyncio.create_subprocess_exec(
        program("velro"),
        *words,
        env={**os.environ, **local.environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(_DEADLINE_S):
        said, _ = await process.communicate()
    if process.returncode:
        raise AssertionError(f"velro {' '.join(words)}: {said.decode()[-2000:]}")
    return perf_counter() - begin


async def _serving(local: Local) -> float:
    """How long both services take to be ready; they are stopped again."""
    begin = perf_counter()
    services = (local.generation, local.storage)
    for service in services:
        service.spawn()
    for service in services:
        await asyncio.to_thread(service.wait_until_ready)
    taken = perf_counter() - begin
    for service in services:
        service.stop()
    return taken
