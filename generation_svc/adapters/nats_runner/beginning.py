"""Where a runner begins whose consumer is gone with the log that was lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import asyncpg

from generation_svc.read_model.queries import QUERIES
from shared.postgres.connecting import POSTGRES_AWAY
from shared.projection.errors import SchemaOutdated
from shared.projection.tables import QUERIES as TABLES
from shared.projection.tables import read_checkpoint

if TYPE_CHECKING:
    from asyncpg import Pool, Record

    from shared.event_log.port import EventLog

# Each is loaded from the log, which takes a millisecond; of more it is no use to know the first.
_MOST: Final = 500
_NO_TABLES: Final = (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError, SchemaOutdated)
FIRST: Final = 1


@dataclass(frozen=True, slots=True)
class Beginning:
    """The position of the first request that may not be finished, by the read model's word.

    A restored log has no consumers. From its first event on, a new one would bring every request
    ever made, and new ones only after them.
    """

    pool: Pool[Record]
    log: EventLog

    async def __call__(self) -> int:
        """Where to begin; the log's first event where the read model cannot say.

        Raises:
            LogUnavailable: no answer, or the log is another one than the read model's.
        """
        # Also where nothing else is loaded: on another log there is nothing to begin with.
        await self.log.load("generation", "nothing")
        try:
            async with self.pool.acquire() as connection:
                position = (await read_checkpoint(connection)).position
                parked = await TABLES.value(connection, "parked_count")
                unfinished = await QUERIES.rows(connection, "unfinished", max_rows=_MOST + 1)
        except (*POSTGRES_AWAY, *_NO_TABLES):
            return FIRST
        if parked or len(unfinished) > _MOST:  # what is parked may be unfinished too
            return FIRST
        first = position + 1
        for row in unfinished:
            history = await self.log.load("generation", row["id"])
            first = min([first, *(event.position for event in history.events[:1])])
        return first
