"""One of several processes that fill the tables of one rebuild: each those of its own generations.

The log is read by their owner, once, whatever it comes from, and each part is handed the records of
its generations before anything of them is decoded. To read the log in each would cost less in the
owner, and more in all: a stream that is delivered to everybody is not divided by anything that a
consumer could filter, because every generation has a subject of its own.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, cast
from zlib import crc32

from shared.event_log.port import RawRecord
from shared.processes.child import OwnerGone, given, tell
from shared.projection.batch import Batch, Decoding
from shared.projection.collecting import collecting_rarely
from shared.projection.rebuild_bulk import Bulk, NeedsCare
from shared.projection.rebuild_connecting import rebuilding, telling_of_postgres
from shared.projection.tables import event_fingerprint

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from shared.projection.port import ReadModel
    from shared.projection.rebuild_schemas import Schemas
    from shared.projection.tables import Checkpoint

NEEDS_CARE: Final = -1
"""What a part tells instead of a position where an event cannot be applied."""

# Positions, subjects, where each event ends among the bytes, and these: half of what it costs to
# hand over as many records.
Packed = tuple[list[int], list[str], list[int], bytes]


@dataclass(frozen=True, slots=True)
class Part:
    """What one of the processes has to do.

    Attributes:
        part: its number, from 0.
        parts: how many there are.
        checkpoint: where it begins, with the incarnation of the parts.
        until: where it ends.
    """

    dsn: str
    schemas: Schemas
    schema: str
    model: ReadModel[Any]
    decoding: Decoding
    part: int
    parts: int
    checkpoint: Checkpoint
    until: int
    rows_a_lot: int


def part_of(subject: str, parts: int) -> int:
    """Which part a generation belongs to, by the last token of its subjects: its id."""
    return crc32(subject[subject.rfind(".") + 1 :].encode()) % parts


def divided(records: Sequence[RawRecord], parts: int) -> list[list[RawRecord]]:
    """Each part's records, and to every part the last one, which says how far all of them are."""
    shares: list[list[RawRecord]] = [[] for _ in range(parts)]
    for record in records:
        subject = record.subject
        shares[crc32(subject[subject.rfind(".") + 1 :].encode()) % parts].append(record)
    last = records[-1]
    for share in shares:
        if not share or share[-1] is not last:
            share.append(last)
    return shares


def packed(records: Sequence[RawRecord]) -> Packed:
    """Records as they are handed over."""
    end = 0
    ends = [end := end + len(record.data) for record in records]
    return (
        [record.position for record in records],
        [record.subject for record in records],
        ends,
        b"".join([record.data for record in records]),
    )


def unpacked(item: Packed) -> list[RawRecord]:
    """The records again."""
    positions, subjects, ends, data = item
    pieces = [data[begin:end] for begin, end in pairwise((0, *ends))]
    return list(map(RawRecord, positions, subjects, pieces))


async def fill_part(part: Part) -> None:
    """Apply what the owner hands over, and tell it of every position.

    Raises:
        Superseded: another rebuild has taken over.
        PostgresAway: the database is gone.
        OwnerGone: nothing more comes.
    """
    with telling_of_postgres():
        async with AsyncExitStack() as stack:
            writer, reader = [
                await stack.enter_async_context(rebuilding(part.dsn, part.schemas, part.schema))
                for _ in range(2)
            ]
            bulk = Bulk(
                writer, reader, part.schema, part.model, part=part.part, rows_a_lot=part.rows_a_lot
            )
            tell(part.checkpoint.position)
            with collecting_rarely():
                try:
                    await bulk.run(_Handed(), _Own(part), part.checkpoint, part.until, tell)
                except NeedsCare:
                    tell(NEEDS_CARE)


class _Handed:
    """The log as far as the owner hands it over."""

    async def read(
        self, *, after: int, until: int | None = None
    ) -> AsyncGenerator[Sequence[RawRecord], None]:
        position = after
        async for item in given():
            records = unpacked(cast("Packed", item))
            position = records[-1].position
            yield records
        if position != until:
            raise OwnerGone(f"the owner of this process broke off at position {position}")


class _Own:
    """Decodes the records of one part: all but perhaps the last."""

    def __init__(self, part: Part) -> None:
        self._part = part

    async def batch(self, records: Sequence[RawRecord]) -> Batch:
        part, last = self._part, records[-1]
        own = records if part_of(last.subject, part.parts) == part.part else records[:-1]
        histories = (await part.decoding.batch(own)).histories if own else {}
        return Batch(records, histories, event_fingerprint(last.data))
