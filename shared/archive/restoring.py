"""The log brought back from its archive: the same events at the same positions."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shared.archive.departing import Departing
from shared.archive.errors import ArchiveForked
from shared.archive.segment import record_sha256
from shared.event_log.jetstream_restore import RepeatedId, bring_back, forgetful
from shared.event_log.port import LogMismatch

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Sequence

    from nats.aio.client import Client

    from shared.archive.archive import Archive
    from shared.archive.archived_log import WholeLog
    from shared.archive.trimmed import TrimmedIndex
    from shared.contracts.subjects import Subjects
    from shared.event_log.port import WholeRecord

# The ids and positions of so many events are in memory.
_WRITTEN_DOWN_AT_ONCE: Final = 100_000


@dataclass(frozen=True, slots=True)
class Compared:
    """How far a log and its archive were found to be the same.

    Attributes:
        position: up to here.
        until: where comparing ends.
    """

    position: int
    until: int


async def compare(
    log: WholeLog, archive: Archive, *, until: int | None = None
) -> AsyncGenerator[Compared, None]:
    """Compare every event that both have, by its hash, a batch at a time.

    With `until`, those up to this position.

    What leaves the log meanwhile is passed over: whoever trims has compared it.

    Raises:
        ArchiveForked: they differ; the message says from which position on.
        ArchiveDamaged, StoreFailed, LogMismatch, LogUnavailable: one of them cannot be read.
    """
    head = await archive.head()
    after = await log.first_position() - 1
    both = min(await log.last_position(), head.last if head else 0)
    until = both if until is None else min(until, both)
    while after < until:
        try:
            async with aclosing(_compared(log, archive, after=after, until=until)) as compared:
                async for after in compared:
                    yield Compared(after, until)
        except ArchiveForked:
            raise
        except LogMismatch:
            # What comes next may have been trimmed while this reader was slow.
            gone = await log.first_position() - 1
            if gone <= after:
                raise
            after = gone


async def _compared(
    log: WholeLog, archive: Archive, *, after: int, until: int
) -> AsyncGenerator[int, None]:
    async with (
        aclosing(archive.read_whole(after=after, until=until)) as kept,
        aclosing(log.read_whole(after=after, until=until)) as source,
    ):
        present = _one_by_one(source)
        async for records in kept:
            for record in records:
                other = await anext(present)
                if record_sha256(other) != record_sha256(record):
                    raise ArchiveForked(
                        f"from position {record.position} on the log is not the one that was "
                        f"archived: it has {other.subject} there, the archive {record.subject}"
                    )
            yield records[-1].position


async def _one_by_one(
    source: AsyncIterable[Sequence[WholeRecord]],
) -> AsyncGenerator[WholeRecord, None]:
    # The two come in batches of their own sizes.
    async for records in source:
        for record in records:
            yield record


async def restore(
    connection: Client, stream: str, archive: Archive, *, after: int
) -> AsyncGenerator[int, None]:
    """Append what the archive holds after a position, which the stream ends at; yields positions.

    An id may be there twice: a writer came again when the server had forgotten the first time.
    Both come back, but what took days to write is now written within the server's memory.

    Raises:
        The same as `bring_back`, but `RepeatedId`, and `Archive.read_whole`.
    """
    try:
        async with aclosing(_appended(connection, stream, archive, after)) as reached:
            async for position in reached:
                after = position
                yield position
    except RepeatedId:
        async with (
            forgetful(connection, stream),
            aclosing(_appended(connection, stream, archive, after, patient=True)) as reached,
        ):
            async for position in reached:
                yield position


async def _appended(
    connection: Client, stream: str, archive: Archive, after: int, *, patient: bool = False
) -> AsyncGenerator[int, None]:
    async with (
        aclosing(archive.read_whole(after=after)) as source,
        aclosing(bring_back(connection, stream, source, patient=patient)) as reached,
    ):
        async for position in reached:
            yield position


async def write_down_what_left(
    index: TrimmedIndex, archive: Archive, subjects: Subjects, *, after: int, until: int
) -> AsyncGenerator[int, None]:
    """Make the index of what is in the archive alone anew; yields positions.

    Interrupted, it goes on behind `TrimmedIndex.through`.

    Raises:
        The same as `TrimmedIndex.add` and `Archive.read`.
    """
    departing = Departing(subjects)
    begun = after
    async with aclosing(archive.read(after=after, until=until)) as source:
        async for records in source:
            departing.add(records)
            after = records[-1].position
            if after - begun >= _WRITTEN_DOWN_AT_ONCE or after == until:
                await index.add(departing.until(after), through=after)
                departing, begun = Departing(subjects), after
                yield after
