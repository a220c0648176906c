"""Building a read model anew from the log, beside the one that serves, and putting it in its place.

The tables that serve are read and projected all the while; nothing is taken from them before the
new ones have caught up. The swap is one transaction, after which a live projector finds itself
superseded and goes on with the new tables. A rebuild that fails or is killed leaves everything as
it was; the next one begins anew.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import structlog

from shared.event_log.port import LogMismatch
from shared.postgres.connecting import close, connect
from shared.projection.applying import Applier, Poison
from shared.projection.collecting import collecting_rarely
from shared.projection.errors import AnotherIsActive
from shared.projection.reading import reading_ahead
from shared.projection.tables import (
    QUERIES,
    Checkpoint,
    channel_of,
    create,
    read_checkpoint,
    recognise,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncpg import Connection, Record

    from shared.event_log.port import EventLog
    from shared.projection.batch import Decoding
    from shared.projection.port import ReadModel

_log = structlog.get_logger(__name__)

_SWAP_TRIES: Final = 20
_SWAP_LOCK_TIMEOUT: Final = "2s"
# The most that the live projector is held up by a swap.
_STANDSTILL_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rebuild is.

    Attributes:
        done: the position reached.
        total: the position to reach: the log's end when it was last looked at.
        took_s: since the first event was read.
    """

    done: int
    total: int
    took_s: float

    @property
    def events_per_s(self) -> float:
        """So far, on average."""
        return self.done / self.took_s if self.took_s else 0.0

    @property
    def left_s(self) -> float | None:
        """What is left at this speed; None before there is one."""
        return (self.total - self.done) / self.events_per_s if self.done else None


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild did.

    Attributes:
        position: where the read model stands now.
        parked: how many events were put aside, with `Poison.PARK`.
    """

    position: int
    parked: int
    took_s: float


async def replay(
    dsn: str,
    log: EventLog,
    model: ReadModel[Any],
    decoding: Decoding,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
    poison: Poison = Poison.STOP,
    lock_timeout_s: float = 10.0,
) -> Rebuilt:
    """Build the read model anew from the log, and swap it in. Safe beside running services.

    Raises:
        PoisonedEvent: with `Poison.STOP`, an event cannot be applied; everything is as it was.
        AnotherIsActive: another rebuild of it is running, or readers never let the swap through.
        LogUnavailable: the log cannot be read.
        LogMismatch: the log was made anew meanwhile.
    """
    schema = f"{model.name}_rebuild"
    connection = await connect(dsn, schema=schema, application_name=f"velro replay {model.name}")
    try:
        await _become_the_one(connection, schema, lock_timeout_s)
        building = _Building(
            connection=connection,
            schema=schema,
            model=model,
            log=log,
            decoding=decoding,
            applier=Applier(connection, schema, model, poison=poison),
            on_progress=on_progress,
        )
        try:
            with collecting_rarely():
                return await building.build()
        except BaseException:
            await building.clear_away()
            raise
    finally:
        await close(connection)


async def _become_the_one(
    connection: Connection[Record], schema: str, lock_timeout_s: float
) -> None:
    await connection.execute(f"set lock_timeout = '{int(lock_timeout_s * 1000)}ms'")
    try:
        await QUERIES.row(connection, "activate", schema_name=schema)
    except asyncpg.LockNotAvailableError as error:
        raise AnotherIsActive(
            f"another rebuild holds {schema} and did not end within {lock_timeout_s} s"
        ) from error


@dataclass(frozen=True, slots=True)
class _Building:
    connection: Connection[Record]
    schema: str
    model: ReadModel[Any]
    log: EventLog
    decoding: Decoding
    applier: Applier[Any]
    on_progress: Callable[[Progress], None]
    began: float = field(default_factory=time.monotonic)

    async def build(self) -> Rebuilt:
        connection = self.connection
        # What is written here is nothing to anybody before the swap, which is made durable.
        await connection.execute("set synchronous_commit = off")
        async with connection.transaction():
            await connection.execute(f'drop schema if exists "{self.schema}" cascade')
            await create(connection, self.schema, self.model)
        checkpoint = await read_checkpoint(connection)
        from_another_log = await self._serves_another_log()
        for _ in range(_SWAP_TRIES):
            checkpoint = await self._catch_up(checkpoint, await self.log.last_position())
            position = await self._swapped(checkpoint, may_go_back=from_another_log)
            if position is not None:
                took_s = time.monotonic() - self.began
                _log.info("rebuilt", read_model=self.model.name, position=position)
                return Rebuilt(position, self.applier.parked_count, took_s)
        raise AnotherIsActive(
            f"readers of {self.model.name} held its tables during {_SWAP_TRIES} tries to swap "
            "them; nothing was changed, try again when no long query runs"
        )

    async def _catch_up(self, checkpoint: Checkpoint, end: int) -> Checkpoint:
        """Project up to a position."""
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self.applier.begin()
        self._tell(checkpoint, end)
        after = checkpoint.position
        async with reading_ahead(self.log, self.decoding, after=after, until=end) as ahead:
            while (batch := await ahead.next(never)) is not None:
                checkpoint = await self.applier.apply(batch, checkpoint)
                self._tell(checkpoint, end)
        return checkpoint

    def _tell(self, checkpoint: Checkpoint, end: int) -> None:
        self.on_progress(Progress(checkpoint.position, end, time.monotonic() - self.began))

    async def _serves_another_log(self) -> bool:
        """Whether the tables that serve hold events that this log has not."""
        serving = self.model.name
        if not await QUERIES.value(self.connection, "exists_in", schema_name=serving):
            return False
        async with self.connection.transaction():
            await self.connection.execute(f'set local search_path = "{serving}"')
            served = await read_checkpoint(self.connection)
        try:
            await recognise(self.log, served)
        except LogMismatch as mismatch:
            _log.warning("rebuilding_from_another_log", read_model=serving, reason=str(mismatch))
            return True
        return False

    async def _swapped(self, checkpoint: Checkpoint, *, may_go_back: bool) -> int | None:
        """Put the new tables in the old ones' place; the position, or None where that must wait.

        The old checkpoint's table is locked first, as a projector's transaction does, so that the
        two wait for each other and never deadlock. While it is locked the old tables stand still.
        """
        try:
            async with asyncio.timeout(_STANDSTILL_S), self.connection.transaction():
                return await self._swap(checkpoint, may_go_back=may_go_back)
        except (
            asyncpg.LockNotAvailableError,
            asyncpg.DeadlockDetectedError,
            TimeoutError,
        ) as error:
            _log.warning("swap_put_off", read_model=self.model.name, reason=str(error))
            return None

    async def _swap(self, checkpoint: Checkpoint, *, may_go_back: bool) -> int:
        connection, serving = self.connection, self.model.name
        await connection.execute("set local synchronous_commit = on")
        await connection.execute(f"set local lock_timeout = '{_SWAP_LOCK_TIMEOUT}'")
        await QUERIES.row(connection, "lock_schema_making", schema_name=serving)
        if await QUERIES.value(connection, "exists_in", schema_name=serving):
            table = f'"{serving}".projection_checkpoint'
            await connection.execute(f"lock table {table} in access exclusive mode")
            served = await connection.fetchval(f"select position from {table}")  # noqa: S608 - our own name
            if checkpoint.position < served and not may_go_back:
                # The live projector was faster, and readers never go back. It would be faster
                # again, so these last few events are projected while it stands still.
                checkpoint = await self._catch_up(checkpoint, served)
        await connection.execute(f'drop schema if exists "{serving}" cascade')
        await connection.execute(f'alter schema "{self.schema}" rename to "{serving}"')
        channel, position = channel_of(serving), str(checkpoint.position)
        await QUERIES.row(connection, "notify", channel=channel, position=position)
        return checkpoint.position

    async def clear_away(self) -> None:
        """Take the unfinished tables away; where that fails, the next rebuild does it."""
        if self.connection.is_closed():
            return
        try:
            await self.connection.execute(f'drop schema if exists "{self.schema}" cascade')
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            _log.warning("rebuild_left_behind", schema=self.schema, reason=str(error))
