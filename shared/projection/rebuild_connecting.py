"""Connections that fill tables which nobody reads yet."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from shared.postgres.connecting import POSTGRES_AWAY, away, close, connect
from shared.projection.errors import PostgresAway

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from asyncpg import Connection, Record

    from shared.projection.rebuild_schemas import Schemas


@contextmanager
def telling_of_postgres() -> Generator[None]:
    """What the database does not do becomes a sentence.

    Raises:
        PostgresAway: instead of whatever its driver raised.
    """
    try:
        yield
    except POSTGRES_AWAY as error:
        raise PostgresAway(away(error)) from error


@asynccontextmanager
async def rebuilding(dsn: str, schemas: Schemas, schema: str) -> AsyncGenerator[Connection[Record]]:
    """A connection whose search path names a schema beside the one that serves.

    Raises:
        POSTGRES_AWAY: any of these.
    """
    connection = await connect(
        dsn, schema=schema, application_name=f"velro replay {schemas.serving}"
    )
    try:
        # What is written here is nothing to anybody before the switch, which is made durable.
        await connection.execute("set synchronous_commit = off")
        # A plan from when the tables were empty reads them whole, and would be kept.
        await connection.execute("set plan_cache_mode = force_custom_plan")
        yield connection
    finally:
        await close(connection)
