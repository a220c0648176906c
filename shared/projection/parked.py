"""What was put aside: seen, tried again, or given up, beside the running projector.

Both changes are one transaction that holds the checkpoint, as a projector's does, so neither sees
half of the other. Events come from the log; they are applied in its order, and never twice.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from shared.errors import Refused, TryLater
from shared.projection.applying import follows, storable
from shared.projection.folding import save_one
from shared.projection.kept import KEPT, Marks, marks_of
from shared.projection.tables import QUERIES, channel_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from asyncpg import Connection, Record

    from shared.event_log.port import EventLog, RawRecord
    from shared.projection.batch import Decoding
    from shared.projection.port import ReadModel

# Reading through so many events of others costs less than another consumer.
_LONGEST_GAP: Final = 1000
# How often more events may be parked between reading the log and holding the checkpoint.
_TRIES: Final = 10


class NotParked(Refused):
    """Nothing of this generation is parked."""


class ParkedMeanwhile(TryLater):
    """More of the generation was parked each time its events had been read."""


@dataclass(frozen=True, slots=True)
class ParkedEvent:
    """An event that is put aside.

    Attributes:
        following: how many later events of its generation wait for it.
    """

    position: int
    subject: str
    generation_id: str
    event_type: str | None
    reason: str
    parked_at: datetime
    following: int = 0


@dataclass(frozen=True, slots=True)
class Discarded:
    """An event that was left out for good, and by whom."""

    position: int
    subject: str
    generation_id: str
    event_type: str | None
    reason: str
    why: str
    discarded_by: str
    discarded_at: datetime


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of one generation's parked events.

    Attributes:
        applied: how many have their effect now, or were left out as discarded.
        still: the event that cannot be applied, and why; None: nothing is parked any more.
    """

    generation_id: str
    applied: int
    still: ParkedEvent | None


@dataclass(frozen=True, slots=True)
class ParkingPlace:
    """The parked events of one read model.

    Attributes:
        connection: of the caller, used by nobody else meanwhile; its search path names the schema.
    """

    connection: Connection[Record]
    model: ReadModel[Any]
    log: EventLog
    decoding: Decoding

    async def first_of_each(self, *, most: int, after: int = 0) -> list[ParkedEvent]:
        """The event that began it, of each generation that is put aside, oldest first.

        Args:
            most: how many at once.
            after: only those behind this position, to go on where the last answer ended.
        """
        rows = await QUERIES.rows(self.connection, "parked_first", most=most, after=after)
        return [ParkedEvent(**row) for row in rows]

    async def of(self, generation_id: str) -> list[ParkedEvent]:
        """All parked events of one generation, in the log's order; empty where there are none."""
        rows = await QUERIES.rows(self.connection, "parked", generation_id=generation_id)
        return [ParkedEvent(**row) for row in rows]

    async def discarded(self) -> list[Discarded]:
        """Every event that was left out for good."""
        rows = await KEPT.rows(self.connection, "discarded", read_model=self.model.name)
        return [Discarded(**row) for row in rows]

    async def records(self, events: Iterable[ParkedEvent]) -> list[RawRecord]:
        """These events as the log holds them.

        Raises:
            LogUnavailable: no answer.
            LogMismatch: they are not in the log any more.
        """
        return await _records_at(self.log, sorted(event.position for event in events))

    async def retry(self, generation_id: str) -> Retried:
        """Apply the parked events of a generation, up to the first that still cannot be.

        Raises:
            NotParked: there are none.
            ParkedMeanwhile: try again.
            LogUnavailable, LogMismatch: as reading the log.
        """
        return await self._settle(generation_id, decision=None)

    async def discard(self, generation_id: str, *, why: str, by: str) -> Retried:
        """Leave the event that began it out for good, and apply those that waited for it.

        The decision is kept over rebuilds, which leave the event out too.

        Raises:
            The same as `retry`.
        """
        return await self._settle(generation_id, decision=(why, by))

    async def undo_discard(self, generation_id: str) -> int:
        """Take the decisions on a generation back; the next rebuild applies its events again.

        Returns:
            How many decisions there were.
        """
        return await KEPT.run(
            self.connection,
            "undo_discards",
            read_model=self.model.name,
            generation_id=generation_id,
        )

    async def _settle(self, generation_id: str, *, decision: tuple[str, str] | None) -> Retried:
        known: dict[int, RawRecord] = {}
        for _ in range(_TRIES):
            # The log is read before the checkpoint is held: a projector is not kept waiting for it.
            events = await self.of(generation_id)
            missing = [event.position for event in events if event.position not in known]
            known |= {record.position: record for record in await _records_at(self.log, missing)}
            async with self.connection.transaction():
                held = await QUERIES.row(self.connection, "hold")
                events = await self.of(generation_id)
                if not events or held is None:
                    raise NotParked(
                        f"nothing of generation {generation_id} is parked in {self.model.name}; "
                        f"`velro parked list` shows what is"
                    )
                if not {event.position for event in events} <= known.keys():
                    continue
                if decision is not None:
                    await self._decide(events[0], *decision)
                # What is deadly is tried all the same: a person asked for it.
                marks = Marks((await marks_of(self.connection, self.model.name)).discarded)
                records = [known[event.position] for event in events]
                return await self._apply(events, records, marks, held["position"])
        raise ParkedMeanwhile(
            f"events of generation {generation_id} arrive faster than they are read; try again"
        )

    async def _decide(self, event: ParkedEvent, why: str, by: str) -> None:
        await KEPT.run(
            self.connection,
            "discard",
            read_model=self.model.name,
            position=event.position,
            subject=event.subject,
            generation_id=event.generation_id,
            event_type=event.event_type,
            reason=event.reason,
            why=storable(why),
            discarded_by=storable(by),
        )

    async def _apply(
        self,
        events: Sequence[ParkedEvent],
        records: Sequence[RawRecord],
        marks: Marks,
        checkpoint: int,
    ) -> Retried:
        connection, generation_id = self.connection, events[0].generation_id
        batch = await self.decoding.batch(records)
        # Decoded again they may name another generation than when they were parked.
        history = sorted(
            (event for part in batch.histories.values() for event in part),
            key=lambda event: event.position,
        )
        before = (await self.model.load(connection, [generation_id])).get(generation_id)
        applied, reason = await save_one(
            connection, self.model, generation_id, before, history, marks=marks
        )
        done = [event.position for event in events[:applied]]
        await QUERIES.run(connection, "unpark", positions=done)
        await KEPT.run(connection, "not_deadly", read_model=self.model.name, positions=done)
        still: ParkedEvent | None = None
        if left := events[applied:]:
            first = left[0].position
            reasons = [storable(reason), *(follows(first) for _ in left[1:])]
            positions = [event.position for event in left]
            await QUERIES.run(connection, "park_again", position=positions, reason=reasons)
            still = (await self.of(generation_id))[0]
        if done:
            await QUERIES.run(connection, "supersede")
            channel = channel_of(self.model.name)
            await QUERIES.row(connection, "notify", channel=channel, position=str(checkpoint))
        return Retried(generation_id, applied, still)


async def _records_at(log: EventLog, positions: Sequence[int]) -> list[RawRecord]:
    wanted = set(positions)
    found: list[RawRecord] = []
    for first, last in _runs(positions):
        async with aclosing(log.read(after=first - 1, until=last)) as source:
            async for records in source:
                found += (record for record in records if record.position in wanted)
    return found


def _runs(positions: Sequence[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for position in positions:
        if runs and position - runs[-1][1] <= _LONGEST_GAP:
            runs[-1] = (runs[-1][0], position)
        else:
            runs.append((position, position))
    return runs
