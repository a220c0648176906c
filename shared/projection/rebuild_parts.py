"""A rebuild's bulk divided by generation among several processes, and put together again.

While they are at work each part has a checkpoint of its own, written with its rows. When all of
them stand at one position that becomes the one checkpoint of the tables. Where they were cut off,
the one checkpoint is raised to the part that is furthest behind, and what comes next is projected
for those parts alone that do not have it yet, by one process: some ten thousand events.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from shared.processes.child import Child, ChildFailed, child
from shared.processes.together import together
from shared.projection import rebuild_bulk
from shared.projection.batch import Batch
from shared.projection.errors import PartFailed, Superseded
from shared.projection.rebuild_bulk import NeedsCare
from shared.projection.rebuild_part import NEEDS_CARE, Part, divided, fill_part, packed, part_of
from shared.projection.rebuild_schemas import REBUILD
from shared.projection.tables import QUERIES, Checkpoint, channel_of, event_fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asyncpg import Connection, Record

    from shared.event_log.port import RawRecord
    from shared.projection.batch import Decoding
    from shared.projection.port import ReadModel
    from shared.projection.reading import Readable
    from shared.projection.rebuild_schemas import Schemas


@dataclass(slots=True)
class Parts:
    """Several processes that fill one schema.

    Attributes:
        dsn: of the database.
        connection: to the schema; used for nothing else meanwhile.
        count: how many processes.
    """

    dsn: str
    connection: Connection[Record]
    schemas: Schemas
    schema: str
    model: ReadModel[Any]
    decoding: Decoding
    count: int
    _ready: asyncio.Event = field(default_factory=asyncio.Event)
    _reached: dict[int, int] = field(default_factory=dict[int, int])
    _last: RawRecord | None = None

    async def run(
        self, log: Readable, checkpoint: Checkpoint, until: int, tell: Callable[[int], None]
    ) -> Checkpoint:
        """Project up to a position; `tell` hears how far all of them are.

        Raises:
            NeedsCare: an event cannot be applied; see `behind`.
            PartFailed: a process ended too early; what was written is gone on with.
            LogUnavailable, LogMismatch: the log cannot be read.
        """
        incarnation = uuid4()
        await REBUILD.run(
            self.connection,
            "begin_parts",
            parts=self.count,
            incarnation=incarnation,
            position=checkpoint.position,
            event_fingerprint=checkpoint.event_fingerprint,
        )
        begins = Checkpoint(incarnation, checkpoint.position, checkpoint.event_fingerprint)
        async with AsyncExitStack() as stack:
            children = [
                await stack.enter_async_context(child(partial(fill_part, part)))
                for part in self._parts(begins, until)
            ]
            hearing = [self._hear(number, one, tell) for number, one in enumerate(children)]
            await together(self._feed(log, checkpoint.position, until, children), *hearing)
        return await self._joined(checkpoint, until)

    async def _feed(self, log: Readable, after: int, until: int, children: Sequence[Child]) -> None:
        await self._ready.wait()
        async with aclosing(log.read(after=after, until=until)) as source:
            async for records in source:
                self._last = records[-1]
                shares = divided(records, self.count)
                for share, one in zip(shares, children, strict=True):
                    await one.give(packed(share))
        for one in children:
            one.give_no_more()

    async def _hear(self, number: int, one: Child, tell: Callable[[int], None]) -> None:
        try:
            async for line in one.lines():
                if (position := int(line)) == NEEDS_CARE:
                    raise NeedsCare
                self._reached[number] = position
                if len(self._reached) == self.count:
                    self._ready.set()
                    tell(min(self._reached.values()))
        except ChildFailed as error:
            raise PartFailed(
                f"process {number + 1} of {self.count} that rebuild {self.model.name} ended: "
                f"{error}. What was built is kept: the same command goes on from here"
            ) from error

    async def _joined(self, checkpoint: Checkpoint, until: int) -> Checkpoint:
        assert self._last is not None
        fingerprint = event_fingerprint(self._last.data)
        async with self.connection.transaction():
            moved = await QUERIES.value(
                self.connection,
                "move",
                incarnation=checkpoint.incarnation,
                from_position=checkpoint.position,
                to_position=until,
                event_fingerprint=fingerprint,
                channel=channel_of(self.schema),
            )
            joined = await REBUILD.run(self.connection, "join_parts", position=until)
            if moved is None or joined != self.count:
                raise Superseded(f"somebody else writes to schema {self.schema}")
        return Checkpoint(checkpoint.incarnation, until, fingerprint)

    def _parts(self, begins: Checkpoint, until: int) -> list[Part]:
        return [
            Part(
                self.dsn,
                self.schemas,
                self.schema,
                self.model,
                self.decoding,
                part=number,
                parts=self.count,
                checkpoint=begins,
                until=until,
                rows_a_lot=rebuild_bulk.ROWS_A_LOT,
            )
            for number in range(self.count)
        ]


@dataclass(frozen=True, slots=True)
class Behind:
    """Decodes for those parts alone that do not have an event yet.

    Attributes:
        reached: where each of the parts is, by its number.
    """

    reached: Mapping[int, int]
    decoding: Decoding

    @property
    def until(self) -> int:
        """From here on none has any event."""
        return max(self.reached.values())

    async def batch(self, records: Sequence[RawRecord]) -> Batch:
        """Decode and group."""
        parts = len(self.reached)
        missing = [
            record
            for record in records
            if record.position > self.reached[part_of(record.subject, parts)]
        ]
        histories = (await self.decoding.batch(missing)).histories if missing else {}
        return Batch(records, histories, event_fingerprint(records[-1].data))


async def behind(connection: Connection[Record], decoding: Decoding) -> Behind | None:
    """What parts that were cut off are behind each other; None where there are none."""
    rows = await REBUILD.rows(connection, "parts")
    return Behind({row["part"]: row["position"] for row in rows}, decoding) if rows else None
