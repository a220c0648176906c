"""Bringing tables that nobody reads yet up to a position, the fastest way that there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from shared.projection.catching_up import project
from shared.projection.rebuild_bulk import Bulk, NeedsCare
from shared.projection.rebuild_parts import Parts, behind
from shared.projection.rebuild_schemas import REBUILD, taken_over
from shared.projection.tables import read_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncpg import Connection, Record

    from shared.event_log.port import EventLog
    from shared.projection.applying import Applier
    from shared.projection.batch import Decoding
    from shared.projection.port import ReadModel
    from shared.projection.reading import Batching
    from shared.projection.rebuild_schemas import Schemas
    from shared.projection.tables import Checkpoint

# Fewer events than this are projected batch by batch, as they are live.
_BULK_EVENTS: Final = 20_000
# Other processes take a second to be there, of each core.
_PARTS_EVENTS: Final = 100_000


def parts_for(events: int, processes: int) -> int:
    """How many processes so many events are divided among, of so many that may be."""
    return processes if events >= _PARTS_EVENTS else 1


@dataclass(frozen=True, slots=True)
class CatchingUp:
    """One schema, and what fills it.

    Attributes:
        connection: its search path names the schema, as that of `beside` does.
        applier: for what is projected batch by batch.
        tell: hears of every position.
    """

    dsn: str
    connection: Connection[Record]
    beside: Connection[Record]
    schemas: Schemas
    schema: str
    model: ReadModel[Any]
    log: EventLog
    decoding: Decoding
    applier: Applier[Any]
    tell: Callable[[int], None]

    async def to(self, checkpoint: Checkpoint, end: int, *, parts: int = 1) -> Checkpoint:
        """Project up to a position, by one process or by so many as there are parts.

        What another rebuild left is levelled before.

        Raises:
            PoisonedEvent: with `Poison.STOP`.
            PartFailed: a process ended too early.
            LogUnavailable, LogMismatch: the log cannot be read.
        """
        if parts > 1 and end > checkpoint.position and not self.applier.parked:
            divided = Parts(
                self.dsn,
                self.connection,
                self.schemas,
                self.schema,
                self.model,
                self.decoding,
                parts,
            )
            try:
                return await divided.run(self.log, checkpoint, end, self.tell)
            except NeedsCare:
                checkpoint = await self.levelled(await taken_over(self.connection))
        return await self._alone(checkpoint, end, self.decoding)

    async def levelled(self, checkpoint: Checkpoint) -> Checkpoint:
        """Bring parts that were cut off to one position; mostly there are none."""
        missing = await behind(self.connection, self.decoding)
        if missing is not None:
            checkpoint = await self._alone(checkpoint, missing.until, missing)
            await REBUILD.run(self.connection, "join_parts", position=missing.until)
        return checkpoint

    async def project(self, checkpoint: Checkpoint, end: int) -> Checkpoint:
        """Project up to a position batch by batch: for the few events before a switch."""
        return await project(
            self.applier, self.log, self.decoding, checkpoint, until=end, tell=self.tell
        )

    async def _alone(self, checkpoint: Checkpoint, end: int, decoding: Batching) -> Checkpoint:
        if end - checkpoint.position >= _BULK_EVENTS and not self.applier.parked:
            bulk = Bulk(self.connection, self.beside, self.schema, self.model)
            try:
                return await bulk.run(self.log, decoding, checkpoint, end, self.tell)
            except NeedsCare:
                checkpoint = await read_checkpoint(self.connection)
        return await project(
            self.applier, self.log, decoding, checkpoint, until=end, tell=self.tell
        )
