"""Archiving by hand, or as a process of its own."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from shared.printing import printer
from shared.program import on_signals
from storage_svc.composition import archiver_of

if TYPE_CHECKING:
    from shared.archive.settings import ArchiveSettings
    from shared.object_store.settings import S3Settings
    from storage_svc.settings import StorageSettings


async def archive_once(
    settings: StorageSettings, bucket: S3Settings, archive: ArchiveSettings
) -> None:
    """Bring the archive up to the log's end as it is now; what is written is read again.

    Raises:
        VelroError: it could not be, and why.
    """
    console = printer()
    events = 0
    async with archiver_of(settings, bucket, archive) as archiver:
        end = await archiver.log.last_position()
        head = await archiver.head()
        after = head.last if head else 0
        console.print(
            f"  the log ends at position {end:,}, the archive {archiver.archive.root}/ at "
            f"{after:,}: {max(end - after, 0):,} events are to be archived",
            highlight=False,
        )
        async with aclosing(archiver.catch_up(everything=True)) as written:
            async for entry in written:
                await archiver.archive.content(entry)
                events += entry.count
                console.print(
                    f"  archived {entry.first:,} to {entry.last:,} of {end:,}, and read again",
                    highlight=False,
                )
        head = await archiver.archive.head()
    console.print(f"{events:,} events archived; the archive ends at {head.last if head else 0:,}")


async def archive_continuously(
    settings: StorageSettings, bucket: S3Settings, archive: ArchiveSettings
) -> None:
    """Keep the archive up to the log until a signal."""
    stopped = asyncio.Event()
    on_signals(stopped.set)
    async with archiver_of(settings, bucket, archive) as archiver:
        running = asyncio.create_task(archiver.run(), name="archiver")
        stopping = asyncio.create_task(stopped.wait(), name="stop")
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        for task in (running, stopping):
            task.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
        await asyncio.wait((running,))
        if not running.cancelled():
            running.result()
