"""The log with its archive before it: what is archived is read from there."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol

from shared.archive.errors import ArchiveForked
from shared.archive.segment import record_sha256
from shared.event_log.port import EventLog

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Sequence

    from shared.archive.archive import Archive
    from shared.archive.manifest import Entry
    from shared.contracts.envelope import Envelope
    from shared.contracts.events import Family
    from shared.event_log.port import (
        Added,
        Addition,
        Appended,
        ExpectedVersion,
        History,
        RawRecord,
        WholeRecord,
    )


class WholeLog(EventLog, Protocol):
    """A log that also gives all that it keeps of each event."""

    def read_whole(self, *, after: int, until: int) -> AsyncGenerator[Sequence[WholeRecord], None]:
        """As `EventLog.read`."""
        ...


async def see_that_they_agree(log: WholeLog, head: Entry) -> None:
    """See that the log has the archive's last event where the archive has it.

    Raises:
        ArchiveForked: it has not.
        LogUnavailable: the log gave no answer.
    """
    end = await log.last_position()
    if end < head.last:
        raise ArchiveForked(
            f"the log ends at position {end}, and its archive at {head.last}: it was made anew or "
            "has lost events; bring them back with: velro restore"
        )
    source = log.read_whole(after=head.last - 1, until=head.last)
    async with aclosing(source):
        async for records in source:
            for record in records:
                if record_sha256(record) != head.last_record_sha256:
                    raise ArchiveForked(
                        f"the event at position {head.last} is another one in the log than in its "
                        "archive: one of them belongs to another history; nothing is archived "
                        "until a person has decided which (velro archive verify)"
                    )


class ArchivedLog:
    """`EventLog` that reads what is archived from the archive, and the rest from the log."""

    def __init__(self, log: WholeLog, archive: Archive) -> None:
        self._log = log
        self._archive = archive

    async def append(
        self,
        family: Family,
        generation_id: str,
        events: Sequence[Envelope],
        *,
        expected: ExpectedVersion | None,
    ) -> Appended:
        """See `EventLog.append`."""
        return await self._log.append(family, generation_id, events, expected=expected)

    def append_all(self, additions: AsyncIterable[Addition]) -> AsyncGenerator[Added, None]:
        """See `EventLog.append_all`."""
        return self._log.append_all(additions)

    async def load(self, family: Family, generation_id: str) -> History:
        """See `EventLog.load`."""
        return await self._log.load(family, generation_id)

    async def read(
        self, *, after: int, until: int | None = None
    ) -> AsyncGenerator[Sequence[RawRecord], None]:
        """See `EventLog.read`.

        Raises:
            ArchiveDamaged: a segment is missing or is not what was written.
            StoreFailed: the bucket gave no answer.
        """
        position = after
        head = await self._archive.head()
        if head is not None and head.last > after:
            await see_that_they_agree(self._log, head)
            async with aclosing(self._archive.read(after=after, until=until)) as archived:
                async for records in archived:
                    position = records[-1].position
                    yield records
        if until is None or position < until:
            async with aclosing(self._log.read(after=position, until=until)) as rest:
                async for records in rest:
                    yield records

    async def last_position(self) -> int:
        """See `EventLog.last_position`."""
        return await self._log.last_position()
