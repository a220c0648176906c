"""Projecting very many events into tables that nobody reads yet: each row is written seldom.

Live, every batch is a transaction. Here rows are folded in memory and written once some thousands
have changed, which is a fifth of the writing; and they are written by Postgres on another core
while the next ones are folded.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from shared.errors import VelroError
from shared.projection.batch import Unreadable
from shared.projection.errors import Superseded
from shared.projection.folding import NOT_STORABLE
from shared.projection.kept import Marks, marks_of
from shared.projection.reading import reading_ahead
from shared.projection.rebuild_schemas import REBUILD
from shared.projection.tables import QUERIES, Checkpoint, channel_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncpg import Connection, Record

    from shared.projection.batch import Batch
    from shared.projection.port import ReadModel
    from shared.projection.reading import Batching, Readable

Row = TypeVar("Row")

# Each is some 2 KB in memory. Two such lots are held: the one that grows, and the one being
# written, which is kept until the next one is: what happened to lately, happens to again soon.
ROWS_A_LOT: Final = 6_000
# Where events change few rows, the checkpoint moves all the same.
_EVENTS_A_LOT: Final = 100_000


class NeedsCare(VelroError):
    """Some event after the checkpoint cannot be applied: only batch by batch says which."""


class Bulk(Generic[Row]):
    """Folds into memory and writes behind, over two connections to one schema."""

    def __init__(
        self,
        writer: Connection[Record],
        reader: Connection[Record],
        schema: str,
        model: ReadModel[Row],
        *,
        part: int | None = None,
        rows_a_lot: int | None = None,
    ) -> None:
        """Write to a schema that both connections' search path names.

        Args:
            writer: used for nothing else meanwhile.
            reader: neither.
            schema: its name.
            model: whose tables they are.
            part: whose checkpoint is moved; None: the one of the tables.
            rows_a_lot: how many changed rows are written at once; None: `ROWS_A_LOT`.
        """
        self._part = part
        self._rows_a_lot = rows_a_lot or ROWS_A_LOT
        self._writer = writer
        self._reader = reader
        self._channel = channel_of(schema)
        self._model = model
        self._marks = Marks()
        self._changed: dict[str, Row] = {}
        self._written: dict[str, Row] = {}
        self._writing: asyncio.Task[None] | None = None

    async def run(
        self,
        log: Readable,
        decoding: Batching,
        checkpoint: Checkpoint,
        until: int,
        tell: Callable[[int], None],
    ) -> Checkpoint:
        """Project up to a position; `tell` hears how far it is.

        Raises:
            NeedsCare: an event cannot be applied; what was written is a whole number of batches,
                and the checkpoint in the tables says how many.
            Superseded: somebody else writes to these tables.
            LogUnavailable, LogMismatch: the log cannot be read.
        """
        self._marks = await marks_of(self._writer, self._model.name)
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        written = folded = checkpoint
        try:
            async with reading_ahead(
                log, decoding, after=checkpoint.position, until=until
            ) as ahead:
                while (batch := await ahead.next(never)) is not None:
                    await self._fold(batch)
                    folded = Checkpoint(checkpoint.incarnation, batch.last, batch.fingerprint)
                    if (
                        len(self._changed) >= self._rows_a_lot
                        or folded.position - written.position >= _EVENTS_A_LOT
                    ):
                        await self._write(written, folded)
                        written = folded
                    tell(batch.last)
            if folded != written:
                await self._write(written, folded)
            await self._finished()
        except NeedsCare:
            await self._finished()
            raise
        finally:
            await self._given_up()
        return folded

    async def _fold(self, batch: Batch) -> None:
        model, changed, written = self._model, self._changed, self._written
        evolve, discarded = model.evolve, self._marks.discarded
        missing = [
            generation_id
            for generation_id in batch.histories
            if generation_id not in changed and generation_id not in written
        ]
        loaded = await model.load(self._reader, missing) if missing else {}
        for generation_id, history in batch.histories.items():
            before = changed.get(generation_id)
            if before is None:
                before = written.get(generation_id) or loaded.get(generation_id)
            row = before
            for event in history:
                if event.position in discarded:
                    continue
                if isinstance(event, Unreadable) or event.position in self._marks.deadly:
                    raise NeedsCare
                try:
                    row = evolve(row, event)
                except Exception as error:
                    raise NeedsCare from error
            if row is not None and row is not before:
                changed[generation_id] = row

    async def _write(self, before: Checkpoint, after: Checkpoint) -> None:
        """Begin to write what changed; what was begun earlier is finished first."""
        await self._finished()
        self._written, self._changed = self._changed, {}
        self._writing = asyncio.create_task(
            self._transaction(self._written, before, after), name=f"writing {self._channel}"
        )

    async def _finished(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            await writing

    async def _given_up(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            # The error that made it be given up is on its way already.
            with suppress(asyncio.CancelledError, Exception):
                await self._writing

    async def _transaction(
        self, rows: Mapping[str, Row], before: Checkpoint, after: Checkpoint
    ) -> None:
        connection = self._writer
        try:
            async with connection.transaction():
                if await self._move(before, after) is None:
                    raise Superseded(f"somebody else writes to what is told of on {self._channel}")
                if rows:
                    await self._model.save(connection, rows)
        except NOT_STORABLE as error:
            raise NeedsCare from error

    async def _move(self, before: Checkpoint, after: Checkpoint) -> object:
        moves: dict[str, object] = {
            "incarnation": before.incarnation,
            "from_position": before.position,
            "to_position": after.position,
            "event_fingerprint": after.event_fingerprint,
        }
        if self._part is None:
            return await QUERIES.value(self._writer, "move", channel=self._channel, **moves)
        return await REBUILD.value(self._writer, "move_part", part=self._part, **moves)
