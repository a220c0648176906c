"""Putting tables in the place of those that serve, in one transaction, so that readers see no gap.

What serves is renamed, not dropped: it waits under another name, to be switched back to.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import asyncpg
import structlog

from shared.projection.rebuild_schemas import REBUILD, drop
from shared.projection.tables import QUERIES, Checkpoint, channel_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta

    from asyncpg import Connection, Record

    from shared.projection.rebuild_schemas import Schemas

_log = structlog.get_logger(__name__)

LOCK_TIMEOUT: Final = "300ms"
"""How long readers that come meanwhile are held up by one try, where an older one does not end."""

STANDSTILL_S: Final = 5.0
"""The most that the live projector is held up."""


@dataclass(frozen=True, slots=True)
class Switch:
    """One way from what serves to what shall serve.

    Attributes:
        incoming: the schema that shall serve.
        may_go_back: what serves holds events of another log, so its position means nothing.
        catch_up: projects the incoming tables up to a position.
        grace: how long what served is kept.
    """

    connection: Connection[Record]
    schemas: Schemas
    incoming: str
    may_go_back: bool
    catch_up: Callable[[Checkpoint, int], Awaitable[Checkpoint]]
    grace: timedelta

    async def tried(self, checkpoint: Checkpoint) -> int | None:
        """Switch: the position served from now on; None where a lock could not be had in time.

        The old checkpoint's table is locked first, as a projector's transaction does, so that the
        two wait for each other and never deadlock. While it is locked the old tables stand still.
        Then every old table is, which waits for those who read several of them in one transaction.
        """
        try:
            async with asyncio.timeout(STANDSTILL_S), self.connection.transaction():
                return await self._switched(checkpoint)
        except (
            asyncpg.LockNotAvailableError,
            asyncpg.DeadlockDetectedError,
            TimeoutError,
        ) as error:
            _log.info("switch_put_off", read_model=self.schemas.serving, reason=str(error))
            return None

    async def _switched(self, checkpoint: Checkpoint) -> int:
        connection, schemas = self.connection, self.schemas
        await connection.execute("set local synchronous_commit = on")
        await connection.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
        await QUERIES.row(connection, "lock_schema_making", schema_name=schemas.serving)
        serves = await QUERIES.value(connection, "exists_in", schema_name=schemas.serving)
        if serves:
            table = f'"{schemas.serving}".projection_checkpoint'
            await connection.execute(f"lock table {table} in access exclusive mode")
            served = await connection.fetchval(f"select position from {table}")  # noqa: S608 - our own name
            if checkpoint.position < served and not self.may_go_back:
                # The live projector was faster, and readers never go back. It would be faster
                # again, so these last few events are projected while it stands still.
                checkpoint = await self.catch_up(checkpoint, served)
            for row in await REBUILD.rows(connection, "table_names", schema_name=schemas.serving):
                table = f'"{schemas.serving}"."{row["name"]}"'
                await connection.execute(f"lock table {table} in access exclusive mode")
        await connection.execute(f'drop table if exists "{self.incoming}".rebuild_origin')
        await connection.execute(f'drop table if exists "{self.incoming}".rebuild_parts')
        await connection.execute(f'drop table if exists "{self.incoming}".replaced')
        arriving = f"{schemas.serving}_arriving"
        await connection.execute(f'alter schema "{self.incoming}" rename to "{arriving}"')
        await drop(connection, schemas.previous)
        if serves:
            await self._put_aside()
        else:
            await drop(connection, schemas.serving)
        await connection.execute(f'alter schema "{arriving}" rename to "{schemas.serving}"')
        channel, position = channel_of(schemas.serving), str(checkpoint.position)
        await QUERIES.row(connection, "notify", channel=channel, position=position)
        return checkpoint.position

    async def _put_aside(self) -> None:
        connection, schemas = self.connection, self.schemas
        await connection.execute(f'alter schema "{schemas.serving}" rename to "{schemas.previous}"')
        path = await connection.fetchval("show search_path")
        await connection.execute(f'set local search_path = "{schemas.previous}"')
        await connection.execute(REBUILD.sql("create_replaced"))
        await REBUILD.run(connection, "note_replaced", kept_for=self.grace)
        await connection.execute(f"set local search_path = {path}")
