"""A log on real NATS and a generation read model on real Postgres, for tests of what is between."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

from generation_svc.read_model.model import NAME, GenerationModel, dump_outputs
from shared.contracts.codec import Codec
from shared.contracts.envelope import Context, Recorded, seal
from shared.event_log.jetstream import JetStreamLog
from shared.event_log.jetstream_reader import ReadLimits
from shared.event_log.jetstream_stream import StreamDeclaration, ensure_stream
from shared.messaging.connection import connected
from shared.postgres.connecting import connect
from shared.projection.batch import Decoding
from shared.projection.runner import Projector, ProjectorState, ProjectorTiming
from shared.projection.waiting import PositionWatch
from tests.generation_events import NOON

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from asyncpg import Connection, Record
    from nats.aio.client import Client

    from generation_svc.read_model.rows import GenerationRow
    from shared.contracts.events import AnyEvent
    from shared.contracts.subjects import Subjects

WAIT_S = 45.0
QUICK = ProjectorTiming(standby_interval_s=0.1, first_pause_s=0.02, longest_pause_s=0.2)


@dataclass(slots=True)
class World:
    """Everything a projection stands between, and short ways to write and to look."""

    nats: Client
    stream: str
    subjects: Subjects
    dsn: str
    log: JetStreamLog
    model: GenerationModel
    decoding: Decoding
    watch: PositionWatch
    ticks: count[int]

    async def say(self, generation_id: str, *events: AnyEvent) -> int:
        """Append events; the position of the last."""
        position = 0
        for event in events:
            at = NOON + timedelta(seconds=next(self.ticks))
            envelope = seal(
                event, generation_id=generation_id, at=at, context=Context(source="test")
            )
            appended = await self.log.append(
                event.family, generation_id, (envelope,), expected=None
            )
            position = appended.position
        return position

    async def say_bytes(self, subject: str, data: bytes) -> int:
        """Append what no writer of ours would; its position."""
        await self.nats.request(subject, data, timeout=5)
        return await self.log.last_position()

    def projector(self) -> Projector[GenerationRow]:
        """Another process's worth of projector."""
        return Projector(self.dsn, self.log, self.model, self.decoding, timing=QUICK)

    async def reached(self, position: int) -> None:
        """Wait for the read model."""
        await self.watch.wait_for(position, timeout_s=WAIT_S)

    async def rows(self, schema: str = NAME) -> dict[str, dict[str, Any]]:
        """The whole table, as it stands."""
        connection = await self.connection(schema)
        try:
            return await table(connection)
        finally:
            await connection.close()

    async def connection(self, schema: str = NAME) -> Connection[Record]:
        """A connection of the test's own."""
        return await connect(self.dsn, schema=schema, application_name="test")

    async def schemas(self) -> set[str]:
        """Those of the read model that there are: what serves, what is built, what is kept."""
        connection = await self.connection()
        try:
            rows = await connection.fetch(
                "select nspname from pg_namespace where nspname like $1", f"{NAME}%"
            )
        finally:
            await connection.close()
        return {row["nspname"] for row in rows}

    async def folded(self) -> dict[str, dict[str, Any]]:
        """The table as a fold of the whole log in memory says it should be."""
        end = await self.log.last_position()
        rows: dict[str, GenerationRow] = {}
        if end:
            async for records in self.log.read(after=0, until=end):
                for record in records:
                    envelope = Codec().decode(record.data)
                    row = self.model.evolve(
                        rows.get(envelope.subject), Recorded(record.position, envelope)
                    )
                    if row is not None:
                        rows[envelope.subject] = row
        return {generation_id: expected(row) for generation_id, row in rows.items()}


@asynccontextmanager
async def world(
    nats_url: str, stream: str, subjects: Subjects, dsn: str, *, batch: int = 2000
) -> AsyncGenerator[World]:
    """Open everything; nothing is projected before a projector runs."""
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(connected(nats_url, name="test"))
        await ensure_stream(nats, StreamDeclaration(name=stream, subjects=subjects))
        watch = PositionWatch(dsn, NAME)
        await stack.enter_async_context(watch.running())
        limits = ReadLimits(batch=batch, heartbeat_s=0.5, silence_s=1.5, patience_s=10)
        yield World(
            nats=nats,
            stream=stream,
            subjects=subjects,
            dsn=dsn,
            log=JetStreamLog(nats, subjects, stream=stream, read_limits=limits),
            model=GenerationModel(),
            decoding=Decoding(subjects),
            watch=watch,
            ticks=count(),
        )


async def table(connection: Connection[Record]) -> dict[str, dict[str, Any]]:
    """All rows with all columns, json as text."""
    records = await connection.fetch("select * from generations order by id")
    return {record["id"]: dict(record) for record in records}


def expected(row: GenerationRow) -> dict[str, Any]:
    """The columns that a row in memory becomes, without its id and what the table works out."""
    return {
        "position": row.position,
        "user_id": row.user_id,
        "provider": row.provider,
        "model": row.model,
        "input": row.asked and row.asked.input,
        "metadata": row.asked and row.asked.metadata,
        "status": row.status.value,
        "attempts": row.attempts,
        "request_id": row.request_id,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "finished_at": row.finished_at,
        "outputs": dump_outputs(row.outputs),
        "storage_state": row.storage_state.value,
        "storage_failed_at": row.storage_failed_at,
        "earliest_link_death": row.earliest_link_death,
        "migration_completed_at": row.migration and row.migration.completed_at,
    }


def same_as(folded: dict[str, dict[str, Any]], rows: dict[str, dict[str, Any]]) -> bool:
    """Whether a table holds what a fold in memory says."""
    return folded == {
        generation_id: {column: row[column] for column in folded.get(generation_id, row)}
        for generation_id, row in rows.items()
    }


async def until_state(projector: Projector[Any], state: ProjectorState) -> None:
    """Wait until a projector is in a state."""
    await until(lambda: projector.state is state)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that nobody announces."""

    async def asked() -> bool:
        return holds()

    await until_answered(asked)


async def until_answered(holds: Callable[[], Awaitable[bool]]) -> None:
    """The same, where asking takes a server."""
    async with asyncio.timeout(WAIT_S):
        while not await holds():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)
