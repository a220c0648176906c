"""What a rebuild will read and write, and how long that takes, from a sample that is measured."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from shared.event_log.port import LogMismatch
from shared.projection.applying import Applier, Poison
from shared.projection.collecting import collecting_rarely
from shared.projection.rebuild_catching_up import CatchingUp, parts_for
from shared.projection.rebuild_compare import NOT_OF_THE_MODEL
from shared.projection.rebuild_connecting import rebuilding, telling_of_postgres
from shared.projection.rebuild_schemas import (
    REBUILD,
    Schemas,
    Serving,
    begun_before,
    drop,
    serving_of,
)
from shared.projection.tables import create, read_checkpoint

if TYPE_CHECKING:
    from shared.event_log.port import EventLog
    from shared.projection.batch import Decoding
    from shared.projection.port import ReadModel

# About a second's work for each process, and enough for what is done once not to count.
_SAMPLE_EVENTS: Final = 20_000


@dataclass(frozen=True, slots=True)
class PlannedTable:
    """A table that will be filled.

    Attributes:
        rows: about how many it will have.
        bytes: about how many it and its indexes will take.
    """

    name: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a rebuild will do.

    Attributes:
        begins_at: where an interrupted rebuild came to, which is gone on with; mostly 0.
        dropped: why an interrupted rebuild is not gone on with but dropped; None where none is.
        ends_at: the log's last position now.
        aggregates: about how many generations these are of, estimated from the sample.
        tables: what will be written, estimated from it too.
        sampled: how many events were projected to find out.
        events_per_s: how fast that went.
        processes: how many fold.
        starting_s: how long it takes until they are there.
        serving: what will be compared with and replaced; None where nothing can be.
        other_log: why what serves is of another log, if it is: a rebuild then has to be told twice.
    """

    read_model: str
    begins_at: int
    dropped: str | None
    ends_at: int
    aggregates: int
    tables: tuple[PlannedTable, ...]
    sampled: int
    events_per_s: float
    processes: int
    starting_s: float
    serving: Serving | None
    other_log: str | None

    @property
    def events(self) -> int:
        """How many are read."""
        return self.ends_at - self.begins_at

    @property
    def predicted_s(self) -> float:
        """How long the building will take at the sample's speed."""
        return self.starting_s + self.events / self.events_per_s if self.events_per_s else 0.0


async def plan(
    dsn: str,
    log: EventLog,
    model: ReadModel[Any],
    decoding: Decoding,
    *,
    poison: Poison = Poison.STOP,
    processes: int = 1,
) -> Plan:
    """Project the log's beginning into tables of its own, measure, and drop them again.

    That is done as the rebuild will do it: by as many processes.

    Raises:
        PoisonedEvent: with `Poison.STOP`, an event of the sample cannot be applied.
        PostgresAway: the database is gone, or takes nothing.
        AnotherIsActive: a rebuild of it is running.
        LogUnavailable, LogMismatch: the log cannot be read.
    """
    schemas = Schemas(model.name)
    async with AsyncExitStack() as stack:
        stack.enter_context(telling_of_postgres())
        writer = await stack.enter_async_context(rebuilding(dsn, schemas, schemas.sample))
        reader = await stack.enter_async_context(rebuilding(dsn, schemas, schemas.sample))
        ends_at = await log.last_position()
        begun = await begun_before(writer, schemas, model, log)
        begins_at = begun.to.position if begun.to else 0
        parts = parts_for(ends_at - begins_at, processes)
        serving = await serving_of(writer, schemas, model, log)
        async with writer.transaction():
            await drop(writer, schemas.sample)
            await create(writer, schemas.sample, model)
            await writer.execute(REBUILD.sql("create_rebuild"))
        try:
            until = min(ends_at, _SAMPLE_EVENTS * parts)
            generations = await _generations(log, until)
            first = _First()
            applier = Applier(writer, schemas.sample, model, poison=poison)
            catching_up = CatchingUp(
                dsn,
                writer,
                reader,
                schemas,
                schemas.sample,
                model,
                log,
                decoding,
                applier,
                first.tell,
            )
            await applier.begin()
            with collecting_rarely():
                await catching_up.to(await read_checkpoint(writer), until, parts=parts)
            ended = time.perf_counter()
            sizes = await REBUILD.rows(writer, "table_sizes", schema_name=schemas.sample)
            tables = [
                PlannedTable(
                    row["name"],
                    # Every row that the sample made stands for so many.
                    round(
                        await writer.fetchval(f'select count(*) from "{row["name"]}"')  # noqa: S608 - our own name
                        * ends_at
                        / until
                    ),
                    round(row["bytes"] * ends_at / until),
                )
                for row in sizes
                if until and row["name"] not in NOT_OF_THE_MODEL
            ]
        finally:
            await drop(writer, schemas.sample)
    return Plan(
        read_model=model.name,
        begins_at=begins_at,
        dropped=begun.dropped,
        ends_at=ends_at,
        aggregates=round(generations * ends_at / until) if until else 0,
        tables=tuple(tables),
        sampled=until,
        events_per_s=until / (ended - first.at),
        processes=parts,
        starting_s=first.at - first.began,
        serving=serving if isinstance(serving, Serving) else None,
        other_log=str(serving) if isinstance(serving, LogMismatch) else None,
    )


async def _generations(log: EventLog, until: int) -> int:
    found: set[str] = set()
    if until:
        async with aclosing(log.read(after=0, until=until)) as source:
            async for records in source:
                found.update(record.subject.rpartition(".")[2] for record in records)
    return len(found)


class _First:
    """When whoever projects began to: other processes tell of where they begin."""

    def __init__(self) -> None:
        self.began = self.at = time.perf_counter()

    def tell(self, position: int) -> None:
        if position == 0 and self.at == self.began:
            self.at = time.perf_counter()
