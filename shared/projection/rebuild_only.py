"""Making the rows of single generations anew, in the tables that serve, beside their projector.

Their events come from the log, subject by subject; the log is not read as a whole. The rows are
replaced in one transaction that holds the checkpoint first, as a projector's does: each event up to
it has its effect, and each later one is left to the projector.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, get_args

from shared.contracts.envelope import Recorded
from shared.contracts.facts import Family
from shared.event_log.port import CorruptRecord
from shared.postgres.connecting import close, connect
from shared.projection.errors import AnotherIsActive, PoisonedEvent, SchemaOutdated
from shared.projection.folding import NOT_STORABLE, Happened, fold
from shared.projection.kept import marks_of
from shared.projection.rebuild_schemas import REBUILD
from shared.projection.tables import (
    QUERIES,
    read_checkpoint,
    recognise,
    schema_fingerprint,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncpg import Connection, Record

    from shared.event_log.port import EventLog
    from shared.projection.batch import Decoding
    from shared.projection.port import ReadModel

# So many are in memory, and in one transaction, at once. Generations know nothing of each other.
_AT_ONCE: Final = 1_000
_LOADS: Final = 16
# A single subject may be answered by a replica that lags; the tail comes by a consumer, which has
# no gaps. A replica that is further behind than this is not in the cluster any more.
_TAIL_EVENTS: Final = 10_000
# More may not have come between reading the tail and holding the checkpoint.
_MOST_BEHIND: Final = 5_000
_TRIES: Final = 20


@dataclass(frozen=True, slots=True)
class RebuiltOnly:
    """What was made anew.

    Attributes:
        generations: how many were asked for.
        rows: how many of them have rows now.
        unknown: those of which the log has no event; rows of them are gone.
        position: up to which their events are in the rows.
    """

    generations: int
    rows: int
    position: int
    unknown: Sequence[str] = ()


async def generations_of(
    dsn: str,
    log: EventLog,
    model: ReadModel[Any],
    decoding: Decoding,
    user_id: str,
    *,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[str]:
    """Every generation of a user: by the log, which is read once, and by the tables.

    The tables alone may be what is wrong. Only records that hold the user's id are decoded.

    Raises:
        LogUnavailable, LogMismatch: the log cannot be read.
    """
    connection = await connect(dsn, schema=model.name, application_name="velro replay --only")
    try:
        found = set(await model.of_user(connection, user_id))
    finally:
        await close(connection)
    needle = f'"{user_id}"'.encode()
    end = await log.last_position()
    async with aclosing(log.read(after=0, until=end)) as source:
        async for records in source:
            if telling := [record for record in records if needle in record.data]:
                batch = await decoding.batch(telling)
                for history in batch.histories.values():
                    found.update(
                        event.envelope.subject
                        for event in history
                        if isinstance(event, Recorded)
                        and getattr(event.envelope.data, "user_id", None) == user_id
                    )
            on_progress(records[-1].position, end)
    return sorted(found)


async def rebuild_only(
    dsn: str,
    log: EventLog,
    model: ReadModel[Any],
    decoding: Decoding,
    generation_ids: Sequence[str],
    *,
    by_reading: bool = False,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> RebuiltOnly:
    """Make the rows of these generations anew; what was parked of them is applied as well.

    A thousand are replaced at once. `on_progress` hears how many are done, and how many there are.
    With `by_reading` their events are looked for in the whole log: where its beginning is in the
    archive alone, single subjects do not have theirs any more.

    Raises:
        PoisonedEvent: an event cannot be applied; its thousand are as they were.
        SchemaOutdated: the tables are of another version.
        LogMismatch: the tables hold events of another log.
        LogUnavailable: the log cannot be read.
        AnotherIsActive: events came faster than they could be read.
    """
    connection = await connect(dsn, schema=model.name, application_name="velro replay --only")
    try:
        if not await QUERIES.value(connection, "exists_in", schema_name=model.name):
            raise SchemaOutdated(
                f"read model {model.name} has no tables; make them with: velro replay {model.name}"
            )
        found = await QUERIES.row(connection, "checkpoint")
        if found is None or found["schema_fingerprint"] != schema_fingerprint(model):
            raise SchemaOutdated(
                f"the tables of read model {model.name} belong to another version; rebuild all of "
                f"them from the log with: velro replay {model.name}"
            )
        await recognise(log, await read_checkpoint(connection))
        rows = position = 0
        unknown: list[str] = []
        for first in range(0, len(generation_ids), _AT_ONCE):
            some = _Some(connection, log, model, decoding, generation_ids[first : first + _AT_ONCE])
            if not by_reading:
                await some.load()
            written, position = await some.replaced()
            rows += written
            unknown += (one for one, events in some.events.items() if not events)
            on_progress(min(first + _AT_ONCE, len(generation_ids)), len(generation_ids))
        return RebuiltOnly(len(generation_ids), rows, position, unknown)
    finally:
        await close(connection)


@dataclass(slots=True)
class _Some:
    connection: Connection[Record]
    log: EventLog
    model: ReadModel[Any]
    decoding: Decoding
    generation_ids: Sequence[str]
    # By generation and position; an event that comes twice is one.
    events: dict[str, dict[int, Happened]] = field(default_factory=dict[str, dict[int, Happened]])
    read_until: int = 0

    def __post_init__(self) -> None:
        self.events = {generation_id: {} for generation_id in self.generation_ids}

    async def load(self) -> None:
        """Load the histories that there are now; what is left to read is the log's tail."""
        end = await self.log.last_position()
        waiting = iter(self.generation_ids)

        async def load() -> None:
            for generation_id in waiting:
                for family in get_args(Family):
                    await self._load(family, generation_id)

        self.read_until = max(end - _TAIL_EVENTS, 0)
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(_LOADS):
                    tasks.create_task(load())
        except ExceptionGroup as group:
            raise group.exceptions[0] from group  # they met the same wall side by side

    async def replaced(self) -> tuple[int, int]:
        """Replace the rows: how many there are, and at which position."""
        for _ in range(_TRIES):
            # The log is read before the checkpoint is held: a projector is not kept waiting for it.
            await self._read_on(await self.log.last_position())
            async with self.connection.transaction():
                held = await QUERIES.row(self.connection, "hold")
                assert held is not None  # the checkpoint was read before
                position: int = held["position"]
                if position - self.read_until <= _MOST_BEHIND:
                    await self._read_on(position)
                    return await self._write(position), position
        raise AnotherIsActive(
            f"events reach {self.model.name} faster than they are read here; try again"
        )

    async def _load(self, family: Family, generation_id: str) -> None:
        try:
            history = await self.log.load(family, generation_id)
        except CorruptRecord:
            # Perhaps it was discarded, and the others count: they are found by reading on.
            self.read_until = 0
            return
        self.events[generation_id].update({event.position: event for event in history.events})

    async def _read_on(self, until: int) -> None:
        if until <= self.read_until:
            return
        async with aclosing(self.log.read(after=self.read_until, until=until)) as source:
            async for records in source:
                wanted = [
                    record for record in records if record.subject.rpartition(".")[2] in self.events
                ]
                if wanted:
                    batch = await self.decoding.batch(wanted)
                    for generation_id, history in batch.histories.items():
                        self.events[generation_id].update(
                            {event.position: event for event in history}
                        )
                self.read_until = records[-1].position

    async def _write(self, position: int) -> int:
        marks = await marks_of(self.connection, self.model.name)
        rows: dict[str, Any] = {}
        for generation_id, events in self.events.items():
            history = [events[at] for at in sorted(events) if at <= position]
            row, applied, reason = fold(self.model, None, history, marks)
            if applied < len(history):
                stuck = history[applied]
                kind = stuck.envelope.type if isinstance(stuck, Recorded) else stuck.event_type
                raise PoisonedEvent(
                    f"the event at position {stuck.position} of generation {generation_id} "
                    f"({kind or 'of no readable type'}) cannot be applied: {reason}; "
                    "nothing was changed"
                )
            if row is not None:
                rows[generation_id] = row
        connection, ids = self.connection, list(self.generation_ids)
        await self.model.forget(connection, ids)
        try:
            if rows:
                await self.model.save(connection, rows)
        except NOT_STORABLE as error:
            raise PoisonedEvent(
                f"a row of {', '.join(list(rows)[:5])} cannot be written: {error}; "
                "nothing was changed"
            ) from error
        if await REBUILD.run(connection, "unpark_generations", generation_ids=ids):
            await QUERIES.run(connection, "supersede")
        return len(rows)
