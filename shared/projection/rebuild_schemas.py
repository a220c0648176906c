"""The schemas beside the one that serves: the one being built, and the one that served before.

At most one of each exists a read model: `<name>_rebuild` is what a rebuild fills and goes on with
after a crash, `<name>_previous` is what a switch took away and `velro replay --undo` brings back.
"""

from __future__ import annotations

import asyncio
import inspect
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import asyncpg
import structlog

import shared.contracts
from shared.event_log.port import LogMismatch
from shared.postgres.connecting import POSTGRES_AWAY, close, connect
from shared.postgres.queries import Queries
from shared.projection.errors import AnotherIsActive
from shared.projection.tables import (
    QUERIES,
    Checkpoint,
    create,
    read_checkpoint,
    recognise,
    schema_fingerprint,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asyncpg import Connection, Record

    from shared.event_log.port import EventLog
    from shared.projection.port import ReadModel

REBUILD: Final = Queries(Path(__file__).parent / "rebuild.sql")
_log = structlog.get_logger(__name__)

GRACE: Final = timedelta(days=1)
"""How long replaced tables are kept where nobody says otherwise."""

ABANDONED_AFTER: Final = timedelta(days=7)
"""An unfinished rebuild that nobody has gone on with for so long is dropped."""

# Not at once: a projector that comes and goes has other things to do first.
_SWEEP_EVERY_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Schemas:
    """The names of one read model's schemas."""

    serving: str

    @property
    def rebuild(self) -> str:
        """What is being built."""
        return f"{self.serving}_rebuild"

    @property
    def previous(self) -> str:
        """What served before the last switch."""
        return f"{self.serving}_previous"

    @property
    def sample(self) -> str:
        """Where the beginning of the log is projected, to see how long the whole takes."""
        return f"{self.serving}_sample"


async def become_the_one(
    connection: Connection[Record], schemas: Schemas, lock_timeout_s: float
) -> None:
    """Hold what rebuilds, undoings and sweeps of one read model hold one after the other.

    Raises:
        AnotherIsActive: somebody else does.
    """
    await connection.execute(f"set lock_timeout = '{int(lock_timeout_s * 1000)}ms'")
    try:
        await QUERIES.row(connection, "activate", schema_name=schemas.rebuild)
    except asyncpg.LockNotAvailableError as error:
        raise AnotherIsActive(
            f"another rebuild of {schemas.serving} is running and did not end within "
            f"{lock_timeout_s:g} s; try again when it has"
        ) from error


def program_fingerprint(model: ReadModel[Any]) -> str:
    """Tells the code that folds from any other: a rebuild is never continued by another one.

    The files beside the read model's own and those of the contracts are in it.
    """
    folders = [Path(inspect.getfile(type(model))).parent, *map(Path, shared.contracts.__path__)]
    files = sorted(
        file for folder in folders for file in folder.glob("*") if file.suffix in {".py", ".sql"}
    )
    whole = sha256(model.schema_sql.encode())
    for file in files:
        whole.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return whole.hexdigest()


async def begin_or_go_on(
    connection: Connection[Record], schemas: Schemas, model: ReadModel[Any], log: EventLog
) -> Checkpoint:
    """Where an earlier rebuild came to, if this one can go on; else the beginning, of empty tables.

    It can go on where the same code made the same tables from the same log.
    """
    if (await begun_before(connection, schemas, model, log)).to is not None:
        return await taken_over(connection)
    async with connection.transaction():
        await connection.execute(f'drop schema if exists "{schemas.rebuild}" cascade')
        await create(connection, schemas.rebuild, model)
        await connection.execute(REBUILD.sql("create_rebuild"))
        await REBUILD.run(
            connection, "begin_rebuild", program_fingerprint=program_fingerprint(model)
        )
    return await read_checkpoint(connection)


@dataclass(frozen=True, slots=True)
class Begun:
    """What an interrupted rebuild left.

    Attributes:
        to: where it came to; None where there is none, or none that can be gone on with. Of several
            parts the one that is furthest behind says where.
        dropped: why it cannot be gone on with.
    """

    to: Checkpoint | None
    dropped: str | None = None


async def begun_before(
    connection: Connection[Record], schemas: Schemas, model: ReadModel[Any], log: EventLog
) -> Begun:
    """What an earlier rebuild left: it is gone on with by the same code, from the same log."""
    for table in ("rebuild_origin", "projection_checkpoint", "rebuild_parts"):
        if not await REBUILD.value(
            connection, "exists_as", schema_name=schemas.rebuild, table_name=table
        ):
            return Begun(None)
    async with connection.transaction():
        await connection.execute(f'set local search_path = "{schemas.rebuild}"')
        origin = await REBUILD.row(connection, "origin")
        checkpoint = await read_checkpoint(connection)
        parts = [
            Checkpoint(checkpoint.incarnation, row["position"], row["event_fingerprint"])
            for row in await REBUILD.rows(connection, "parts")
        ]
    if origin is None or (origin["program_fingerprint"], origin["schema_fingerprint"]) != (
        program_fingerprint(model),
        schema_fingerprint(model),
    ):
        return Begun(None, "another version of the program began it")
    try:
        for each in (checkpoint, *parts):
            await recognise(log, each)
    except LogMismatch as mismatch:
        return Begun(None, f"it read another log: {mismatch}")
    return Begun(max((checkpoint, *parts[:1]), key=lambda each: each.position))


async def taken_over(connection: Connection[Record]) -> Checkpoint:
    """The checkpoint of tables to which no process writes any more that filled them before.

    One may outlive its owner a little. Of several parts the one furthest behind says where.
    """
    async with connection.transaction():
        await REBUILD.run(connection, "take_parts_over", incarnation=uuid4())
        await REBUILD.run(connection, "raise_to_parts")
    return await read_checkpoint(connection)


@dataclass(frozen=True, slots=True)
class Serving:
    """The tables that serve now hold the log's events up to `position`."""

    position: int
    same_version: bool


async def serving_of(
    connection: Connection[Record], schemas: Schemas, model: ReadModel[Any], log: EventLog
) -> Serving | LogMismatch | None:
    """What serves; why the log is not the one it was made from; None where nothing serves."""
    if not await QUERIES.value(connection, "exists_in", schema_name=schemas.serving):
        return None
    async with connection.transaction():
        await connection.execute(f'set local search_path = "{schemas.serving}"')
        found = await QUERIES.row(connection, "checkpoint")
        checkpoint = await read_checkpoint(connection)
    try:
        await recognise(log, checkpoint)
    except LogMismatch as mismatch:
        _log.info("what_serves_is_of_another_log", read_model=model.name, reason=str(mismatch))
        return mismatch
    same_version = found is not None and found["schema_fingerprint"] == schema_fingerprint(model)
    return Serving(checkpoint.position, same_version)


async def drop(connection: Connection[Record], schema: str) -> None:
    """Take a schema away with everything in it."""
    await connection.execute(f'drop schema if exists "{schema}" cascade')


async def sweep(connection: Connection[Record], schemas: Schemas) -> None:
    """Drop replaced tables whose time is over, and a rebuild that nobody has gone on with."""
    async with connection.transaction():
        if not await REBUILD.value(connection, "try_lock_rebuild", schema_name=schemas.rebuild):
            return  # somebody works on them now
        await connection.execute("set local lock_timeout = '1s'")
        for schema, table, query, parameters in (
            (schemas.previous, "replaced", "is_over", {}),
            (
                schemas.rebuild,
                "projection_checkpoint",
                "is_abandoned",
                {"kept_for": ABANDONED_AFTER},
            ),
        ):
            if not await REBUILD.value(
                connection, "exists_as", schema_name=schema, table_name=table
            ):
                continue
            await connection.execute(f'set local search_path = "{schema}"')
            if await REBUILD.value(connection, query, **parameters):
                await drop(connection, schema)
                _log.info("old_tables_dropped", schema=schema)


@asynccontextmanager
async def sweeping(
    dsn: str, serving: str, *, every_s: float = _SWEEP_EVERY_S
) -> AsyncGenerator[None]:
    """Sweep now and then while the context is open: the active projector's duty."""

    async def keep_sweeping() -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                connection = await connect(
                    dsn, schema=serving, application_name=f"velro sweep {serving}"
                )
                try:
                    await sweep(connection, Schemas(serving))
                finally:
                    await close(connection)
            except POSTGRES_AWAY as error:
                _log.warning("sweep_put_off", schema=serving, reason=str(error))

    task = asyncio.create_task(keep_sweeping(), name=f"sweep {serving}")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled():
            task.result()
