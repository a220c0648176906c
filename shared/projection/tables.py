"""A read model's schema: made when missing, recognised by a fingerprint, never altered."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from shared.event_log.port import LogMismatch
from shared.postgres.queries import Queries
from shared.projection.errors import SchemaOutdated
from shared.projection.kept import ensure_kept

if TYPE_CHECKING:
    from uuid import UUID

    from asyncpg import Connection, Record

    from shared.event_log.port import EventLog
    from shared.postgres.queries import AnyConnection
    from shared.projection.port import ReadModel

QUERIES: Final = Queries(Path(__file__).parent / "tables.sql")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a read model is, and in which life of its tables.

    Attributes:
        position: of the last event whose effect is in the tables; 0 before the first.
        event_fingerprint: of that event; None before the first.
    """

    incarnation: UUID
    position: int
    event_fingerprint: str | None


def channel_of(schema: str) -> str:
    """The name under which Postgres notifies of a schema's new positions."""
    return f"velro_position_{schema}"


def event_fingerprint(data: bytes) -> str:
    """Tells an event from any other. Ids and times are in the bytes, so no two are equal."""
    return sha256(data).hexdigest()


def schema_fingerprint(model: ReadModel[Any]) -> str:
    """Tells a version of a read model's tables from any other.

    A comment counts: it is how a fold that changed under the same tables asks for a rebuild.
    """
    own = QUERIES.sql("create_own")
    return sha256(f"{own}\n{model.schema_sql}".encode()).hexdigest()


async def ensure(connection: Connection[Record], schema: str, model: ReadModel[Any]) -> Checkpoint:
    """The checkpoint; the tables are made first where there are none.

    Raises:
        SchemaOutdated: the tables are those of another version.
    """
    async with connection.transaction():
        await QUERIES.row(connection, "lock_schema_making", schema_name=schema)
        await ensure_kept(connection)
        if not await QUERIES.value(connection, "exists_in", schema_name=schema):
            await create(connection, schema, model)
    found = await QUERIES.row(connection, "checkpoint")
    if found is None or found["schema_fingerprint"] != schema_fingerprint(model):
        raise SchemaOutdated(
            f"the tables of read model {model.name} in schema {schema} belong to another version; "
            f"rebuild them from the log with: velro replay {model.name}"
        )
    return _checkpoint(found)


async def create(connection: Connection[Record], schema: str, model: ReadModel[Any]) -> None:
    """Make the tables, empty, in a schema that holds none. Inside the caller's transaction."""
    await ensure_kept(connection)
    await connection.execute(f'create schema if not exists "{schema}"')
    await connection.execute(QUERIES.sql("create_own"))
    await connection.execute(model.schema_sql)
    await QUERIES.run(connection, "begin_checkpoint", schema_fingerprint=schema_fingerprint(model))


async def read_checkpoint(connection: AnyConnection) -> Checkpoint:
    """How far the schema on the search path is."""
    found = await QUERIES.row(connection, "checkpoint")
    if found is None:
        raise SchemaOutdated("there is a checkpoint table without its row; rebuild the read model")
    return _checkpoint(found)


async def recognise(log: EventLog, checkpoint: Checkpoint) -> None:
    """See that the log is the one whose events are in the tables.

    The event at the checkpoint is compared, byte by byte. The stream's name and birth are not:
    a log that was restored from its archive is another stream with the same events, and is right.

    Raises:
        LogMismatch: it ends before the checkpoint, or holds another event there.
        LogUnavailable: no answer.
    """
    position = checkpoint.position
    if position == 0:
        return
    last = await log.last_position()
    if last < position:
        raise LogMismatch(
            f"the log ends at position {last}, and the read model holds events up to {position}: "
            "the log was truncated or made anew. Restore it, or accept this one: see velro doctor"
        )
    records = log.read(after=position - 1, until=position)
    try:
        batch = await anext(records)
    finally:
        await records.aclose()
    if event_fingerprint(batch[0].data) != checkpoint.event_fingerprint:
        raise LogMismatch(
            f"the log's event at position {position} ({batch[0].subject}) is not the one that was "
            "projected: this is another log. Restore the right one, or accept this one: see velro "
            "doctor"
        )


def _checkpoint(found: Record) -> Checkpoint:
    return Checkpoint(found["incarnation"], found["position"], found["event_fingerprint"])
