"""The log with its archive before it: one history, whatever of it is still in the stream."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from itertools import groupby
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from shared.archive.errors import ArchiveDamaged, ArchiveForked
from shared.archive.segment import record_sha256
from shared.archive.trimmed import BeginningMissing
from shared.contracts.codec import Codec, Undecodable
from shared.contracts.envelope import Recorded
from shared.errors import Refused
from shared.event_log.port import (
    Added,
    CorruptRecord,
    EventLog,
    History,
    LogMismatch,
    LogUnavailable,
)
from shared.object_store.port import StoreFailed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Mapping, Sequence

    from shared.archive.departing import Departed
    from shared.archive.manifest import Entry
    from shared.archive.trimmed import TrimmedIndex
    from shared.contracts.envelope import Envelope
    from shared.contracts.facts import Family
    from shared.event_log.port import Addition, Appended, ExpectedVersion, RawRecord, WholeRecord

_log = structlog.get_logger(__name__)

_ASKED_AT_ONCE: Final = 500
# Projecting waits so long at most for the archive to be compared.
_BUCKET_PATIENCE_S: Final = 5.0
_NOT_WHOLE: Final = "nothing is decided on a part of a log"


class WholeLog(EventLog, Protocol):
    """A log that also gives all that it keeps of each event."""

    @property
    def problem(self) -> str | None:
        """What keeps it from taking events, as far as is known."""
        ...

    def read_whole(self, *, after: int, until: int) -> AsyncGenerator[Sequence[WholeRecord], None]:
        """As `EventLog.read`."""
        ...

    async def first_position(self) -> int:
        """The first position that the log itself still has."""
        ...


class ReadableArchive(Protocol):
    """What is read of `shared.archive.archive.Archive`."""

    async def head(self) -> Entry | None:
        """The newest entry; None in an empty archive."""
        ...

    def read(
        self, *, after: int, until: int | None = None
    ) -> AsyncGenerator[Sequence[RawRecord], None]:
        """Records after a position."""
        ...

    async def records_at(self, positions: Sequence[int]) -> list[RawRecord]:
        """The records of some positions, in order."""
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
    """`EventLog` on a log and its archive.

    Attributes:
        from_archive: everything that is archived is read from there. Else that is read from there
            which was trimmed, and what was taken away in any other way is missed.
    """

    def __init__(
        self,
        log: WholeLog,
        archive: ReadableArchive,
        *,
        trimmed: TrimmedIndex | None = None,
        from_archive: bool = True,
    ) -> None:
        self._log = log
        self._archive = archive
        self._trimmed = trimmed
        self._codec = Codec()
        self.from_archive = from_archive

    @property
    def problem(self) -> str | None:
        """What keeps the log from taking events, as far as is known."""
        return self._log.problem

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

    async def append_all(self, additions: AsyncIterable[Addition]) -> AsyncGenerator[Added, None]:
        """See `EventLog.append_all`. Of what was trimmed nothing is written a second time."""
        if self._trimmed is None or not await self._trimmed_through(self._trimmed):
            async with aclosing(self._log.append_all(additions)) as source:
                async for added in source:
                    yield added
            return
        some: list[Addition] = []
        async for addition in additions:
            some.append(addition)
            if len(some) == _ASKED_AT_ONCE:
                async for added in self._added(some, self._trimmed):
                    yield added
                some = []
        async for added in self._added(some, self._trimmed):
            yield added

    async def load(
        self, family: Family, generation_id: str, *, until: int | None = None
    ) -> History:
        """See `EventLog.load`. The version is the one to append against, 0 where all was trimmed.

        Raises:
            ArchiveDamaged: the archive does not have what it should.
        """
        history = await self._log.load(family, generation_id, until=until)
        # Asked after the stream: what has left it by then is in the index.
        departed = await self._departed(generation_id)
        if departed is None:
            return history
        missing = [each for each in departed.of(family) if until is None or each <= until]
        return await self._joined(missing, history)

    async def read(
        self, *, after: int, until: int | None = None
    ) -> AsyncGenerator[Sequence[RawRecord], None]:
        """See `EventLog.read`.

        Raises:
            ArchiveDamaged: a segment is missing or is not what was written.
            StoreFailed: the bucket gave no answer.
        """
        position = after
        while until is None or position < until:
            if self.from_archive or await self._is_trimmed(position + 1):
                async with aclosing(self._archived(position, until)) as archived:
                    async for records in archived:
                        position = records[-1].position
                        yield records
                if until is not None and position >= until:
                    return
            try:
                async with aclosing(self._log.read(after=position, until=until)) as rest:
                    async for records in rest:
                        position = records[-1].position
                        yield records
            except LogMismatch:
                # What comes next may have been trimmed while this reader was slow.
                if self.from_archive or not await self._is_trimmed(position + 1):
                    raise

    async def last_position(self) -> int:
        """See `EventLog.last_position`."""
        return await self._log.last_position()

    async def see_that_it_is_whole(self) -> None:
        """See that this is the archived log, and that its beginning left on purpose.

        A bucket that is away says nothing against a log.

        Raises:
            LogMismatch: it is another one, or has lost events.
            LogUnavailable: no answer.
        """
        if self._trimmed is not None:
            await self._trimmed.see_that_nothing_is_missing()
        try:
            async with asyncio.timeout(_BUCKET_PATIENCE_S):
                head = await self._archive.head()
        except (StoreFailed, ArchiveDamaged, Refused, TimeoutError) as error:
            _log.warning("log_not_compared_with_archive", reason=str(error) or "no answer")
            return
        if head is not None:
            await see_that_they_agree(self._log, head)

    async def _departed(self, generation_id: str) -> Departed | None:
        if self._trimmed is None:
            return None
        try:
            return await self._trimmed.of(generation_id)
        except BeginningMissing as error:
            raise LogUnavailable(f"{_NOT_WHOLE}: {error}") from error

    async def _trimmed_through(self, trimmed: TrimmedIndex) -> int:
        try:
            await trimmed.see_that_nothing_is_missing()
        except BeginningMissing as error:
            raise LogUnavailable(f"{_NOT_WHOLE}: {error}") from error
        return await trimmed.through()

    async def _is_trimmed(self, position: int) -> bool:
        """Whether it left the stream on purpose, and the archive has it.

        Raises:
            ArchiveDamaged, ArchiveForked: it should have it, and has not.
        """
        if self._trimmed is None or position >= await self._log.first_position():
            return False
        if position > await self._trimmed.through():
            return False
        head = await self._archive.head()
        if head is None or head.last < position:
            raise ArchiveForked(
                f"position {position} was trimmed from the log, and the archive ends at "
                f"{head.last if head else 0}: the archive was lost, or is another one"
            )
        return True

    async def _archived(
        self, after: int, until: int | None
    ) -> AsyncGenerator[Sequence[RawRecord], None]:
        head = await self._archive.head()
        if head is None or head.last <= after:
            return
        await see_that_they_agree(self._log, head)
        async with aclosing(self._archive.read(after=after, until=until)) as archived:
            async for records in archived:
                yield records

    async def _joined(self, departed: Sequence[int], history: History) -> History:
        there = {event.position for event in history.events}
        missing = [position for position in departed if position not in there]
        if not missing:
            return history
        try:
            records = await self._archive.records_at(missing)
        except StoreFailed as error:
            raise LogUnavailable(
                f"events up to position {missing[-1]} are in the archive alone, and the bucket "
                f"gives no answer: {error}"
            ) from error
        events = [self._recorded(record) for record in records]
        return History(
            tuple(sorted((*events, *history.events), key=lambda event: event.position)),
            history.version,
        )

    def _recorded(self, record: RawRecord) -> Recorded:
        try:
            return Recorded(record.position, self._codec.decode(record.data))
        except Undecodable as error:
            raise CorruptRecord(record.position, record.subject, error) from error

    async def _added(
        self, additions: Sequence[Addition], trimmed: TrimmedIndex
    ) -> AsyncGenerator[Added, None]:
        departed = await trimmed.of_each(list({each.generation_id for each in additions}))
        runs = groupby(additions, key=lambda each: _has_departed(each, departed))
        for has_departed, run in runs:
            if has_departed:
                for addition in run:
                    yield await self._compared(addition)
            else:
                async with aclosing(self._log.append_all(_given(list(run)))) as source:
                    async for added in source:
                        yield added

    async def _compared(self, addition: Addition) -> Added:
        """What became of an addition to an aggregate that has a history which it did not expect."""
        history = await self.load(addition.family, addition.generation_id)
        held = {event.envelope.id for event in history.events}
        known = [event.id in held for event in addition.events]
        if all(known):
            return Added(1, 0, 0, len(known))
        # A version of 0 is that of a history of which nothing is left in the stream, too.
        if any(known) or addition.expected not in {None, history.version or None}:
            return Added(1, 0, 0, 0, (addition,))
        written = await self._log.append(
            addition.family, addition.generation_id, addition.events, expected=history.version
        )
        return Added(1, written.position, len(known), 0)


def _has_departed(addition: Addition, departed: Mapping[str, Departed]) -> bool:
    found = departed.get(addition.generation_id)
    return found is not None and bool(found.of(addition.family))


async def _given(additions: Sequence[Addition]) -> AsyncGenerator[Addition, None]:
    for addition in additions:
        yield addition
