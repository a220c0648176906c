"""The archive that the environment names: opened at once, or when something is read from it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from shared.archive.archive import Archive
from shared.archive.archived_log import ArchivedLog
from shared.archive.settings import ArchiveSettings
from shared.archive.trimmed import TrimmedIndex
from shared.event_log.jetstream import JetStreamLog
from shared.object_store.settings import S3Settings
from shared.settings import loaded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from nats.aio.client import Client

    from shared.archive.manifest import Entry
    from shared.event_log.port import RawRecord
    from shared.settings import LogSettings


@asynccontextmanager
async def opened_archive(stream: str) -> AsyncGenerator[Archive]:
    """The archive of a stream, in the bucket that the environment names.

    Raises:
        BadSettings: it names none.
        KeysUnreadable: it names files of keys, which hold none.
    """
    # Botocore takes half a second to be imported, and who reads the stream alone needs none.
    from shared.object_store.s3 import s3_object_store  # noqa: PLC0415 - see above

    async with s3_object_store(loaded(S3Settings)) as bucket:
        yield Archive(bucket, stream, loaded(ArchiveSettings))


@asynccontextmanager
async def archived_log(
    connection: Client, settings: LogSettings, *, from_archive: bool = False
) -> AsyncGenerator[ArchivedLog]:
    """The whole log, whatever of it was trimmed. The bucket is opened where that is needed.

    Args:
        connection: to the log's server.
        settings: which log.
        from_archive: read all that is archived from the archive.
    """
    log = JetStreamLog(connection, settings.subjects, stream=settings.stream)
    index = TrimmedIndex(connection, settings.subjects, settings.stream)
    async with AsyncExitStack() as stack:
        archive = _OpenedWhenRead(settings.stream, stack)
        yield ArchivedLog(log, archive, trimmed=index, from_archive=from_archive)


class _OpenedWhenRead:
    """Programs that never meet a trimmed event need no settings of a bucket, and no connection."""

    def __init__(self, stream: str, stack: AsyncExitStack) -> None:
        self._stream = stream
        self._stack = stack
        self._archive: Archive | None = None
        self._opening = asyncio.Lock()

    async def head(self) -> Entry | None:
        return await (await self._opened()).head()

    async def read(
        self, *, after: int, until: int | None = None
    ) -> AsyncGenerator[Sequence[RawRecord], None]:
        archive = await self._opened()
        async with aclosing(archive.read(after=after, until=until)) as source:
            async for records in source:
                yield records

    async def records_at(self, positions: Sequence[int]) -> list[RawRecord]:
        return await (await self._opened()).records_at(positions)

    async def _opened(self) -> Archive:
        async with self._opening:
            if self._archive is None:
                opening = opened_archive(self._stream)
                self._archive = await self._stack.enter_async_context(opening)
            return self._archive
