"""Writing the log to the bucket, segment by segment, beside everything else."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog

from shared.archive.archived_log import WholeLog, see_that_they_agree
from shared.archive.errors import ManifestBroken
from shared.archive.mending import mend, missing_end
from shared.archive.segment import record_bytes
from shared.errors import VelroError, in_words

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from datetime import datetime

    from shared.archive.archive import Archive
    from shared.archive.manifest import Entry
    from shared.archive.settings import ArchiveSettings
    from shared.event_log.port import WholeRecord

_log = structlog.get_logger(__name__)

_LOOK_EVERY_S: Final = 10.0
_NANOSECONDS: Final = 1_000_000_000


@dataclass(slots=True)
class Archiver:
    """Keeps the archive up to the log, a segment at a time.

    Any number may be at work: before a segment is written the manifest is looked at again, and
    what two write at the same moment does no harm.
    """

    log: WholeLog
    archive: Archive
    settings: ArchiveSettings
    clock: Callable[[], datetime]
    _trouble: str | None = field(default=None, init=False)

    async def head(self) -> Entry | None:
        """The archive's newest entry, once those that are missing are made anew from segments.

        Raises:
            ArchiveForked: the log is not the one that was archived.
            ArchiveDamaged: they cannot be.
            StoreFailed, LogUnavailable: no answer.
        """
        try:
            head = await self.archive.head()
        except ManifestBroken:
            async with aclosing(mend(self.archive)) as mended:
                async for entry in mended:
                    _tell_mended(entry)
            head = await self.archive.head()
        first = await self.log.first_position()
        if first > (head.last if head else 0) + 1:
            missing = await missing_end(self.archive, head, until=first - 1)
            if missing:
                await see_that_they_agree(self.log, missing[-1])
            for head in missing:
                await self.archive.put_entry(head)
                _tell_mended(head)
        return head

    async def catch_up(self, *, everything: bool = False) -> AsyncGenerator[Entry, None]:
        """Write what is due: whole segments, and the rest when it is old enough or `everything`.

        Raises:
            ArchiveForked: the log is not the one that was archived; nothing was written.
            ArchiveDamaged: the archive's manifest is broken, and its segments do not mend it;
                nothing was written.
            StoreFailed: the bucket gave no answer; the next try goes on where it was.
            LogUnavailable: the log gave no answer.
        """
        head = await self.head()
        if head is not None:
            await see_that_they_agree(self.log, head)
        end = await self.log.last_position()
        held: list[WholeRecord] = []
        held_bytes = 0
        after = head.last if head else 0
        if end <= after:
            return
        async with aclosing(self.log.read_whole(after=after, until=end)) as source:
            async for records in source:
                for record in records:
                    held.append(record)
                    held_bytes += record_bytes(record)
                    if held_bytes >= self.settings.segment_bytes:
                        written = await self._written(held, head)
                        if written is None:
                            return
                        yield written
                        head, held, held_bytes = written, [], 0
        if held and (everything or self._is_old(held[0])):
            written = await self._written(held, head)
            if written is not None:
                yield written

    async def run(self) -> None:
        """Catch up again and again, whatever happens, until cancelled."""
        while True:
            try:
                async with aclosing(self.catch_up()) as written:
                    async for entry in written:
                        _log.info(
                            "archived",
                            first=entry.first,
                            last=entry.last,
                            packed_bytes=entry.packed_bytes,
                        )
                self._tell(None)
            except VelroError as error:
                self._tell(in_words(error))
            # Replicas that look at other moments seldom write the same segment.
            await asyncio.sleep(_LOOK_EVERY_S * random.uniform(0.5, 1.5))  # noqa: S311 - no secret

    async def _written(self, records: list[WholeRecord], after: Entry | None) -> Entry | None:
        """The new entry; None where another archiver was faster: the next look begins behind it."""
        now = await self.archive.head()
        if now != after:
            return None
        return await self.archive.write(records, after=after)

    def _is_old(self, record: WholeRecord) -> bool:
        age_s = self.clock().timestamp() - record.stored_at_ns / _NANOSECONDS
        return age_s >= self.settings.segment_age_s

    def _tell(self, trouble: str | None) -> None:
        if trouble is not None and trouble != self._trouble:
            _log.error("not_archived", reason=trouble)
        elif trouble is None and self._trouble is not None:
            _log.info("archiving_again")
        self._trouble = trouble


def _tell_mended(entry: Entry) -> None:
    _log.warning("manifest_entry_made_anew", first=entry.first, last=entry.last)
