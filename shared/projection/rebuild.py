"""Building a read model anew from the log, beside the one that serves, and putting it in its place.

The tables that serve are read and projected all the while. The new ones catch up, are compared with
those that serve at one position, and take their place in one transaction, after which a live
projector finds itself superseded and goes on with the new tables. A rebuild that is killed leaves
the old ones serving, and the next one goes on where it was.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import structlog

from shared.event_log.port import LogMismatch
from shared.projection.applying import Applier, Poison
from shared.projection.collecting import collecting_rarely
from shared.projection.errors import AnotherIsActive, PoisonedEvent, RebuildDiffers
from shared.projection.rebuild_catching_up import CatchingUp, parts_for
from shared.projection.rebuild_compare import Comparison, compare
from shared.projection.rebuild_connecting import rebuilding, telling_of_postgres
from shared.projection.rebuild_schemas import (
    GRACE,
    Schemas,
    Serving,
    become_the_one,
    begin_or_go_on,
    drop,
    serving_of,
    sweep,
)
from shared.projection.rebuild_switch import LOCK_TIMEOUT, STANDSTILL_S, Switch

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from asyncpg import Connection, Record

    from shared.event_log.port import EventLog
    from shared.projection.batch import Decoding
    from shared.projection.port import ReadModel
    from shared.projection.tables import Checkpoint

_log = structlog.get_logger(__name__)

_TRIES: Final = 60
_PAUSE_S: Final = 0.2
# So near behind the tables that serve, the rest is projected while they stand still: some 50 ms.
_NEAR_EVENTS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rebuild is.

    Attributes:
        done: the position reached.
        total: the position to reach: the log's end when it was last looked at.
        took_s: since it began or went on.
        began_at: the position that an earlier, interrupted rebuild had reached; mostly 0.
    """

    done: int
    total: int
    took_s: float
    began_at: int = 0

    @property
    def events_per_s(self) -> float:
        """So far, on average."""
        return (self.done - self.began_at) / self.took_s if self.took_s else 0.0

    @property
    def left_s(self) -> float | None:
        """What is left at this speed; None before there is one."""
        return (self.total - self.done) / self.events_per_s if self.events_per_s else None


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild did.

    Attributes:
        position: where the read model stands now.
        parked: how many events were put aside, with `Poison.PARK`.
        began_at: where an earlier, interrupted rebuild had come to; mostly 0.
        comparison: with what served before; None where there was nothing to compare with.
    """

    position: int
    parked: int
    took_s: float
    began_at: int = 0
    comparison: Comparison | None = None


async def replay(
    dsn: str,
    log: EventLog,
    model: ReadModel[Any],
    decoding: Decoding,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
    poison: Poison = Poison.STOP,
    lock_timeout_s: float = 10.0,
    accept_differences: bool = False,
    grace: timedelta = GRACE,
    processes: int = 1,
) -> Rebuilt:
    """Build the read model anew from the log, and switch to it. Safe beside running services.

    Whatever ends it before the switch leaves the tables that serve as they are, and all but a
    poisoned event leaves what was built, for the next one to go on with.

    Args:
        dsn: of the database, as the role that owns the read model.
        log: read from its beginning.
        model: which one.
        decoding: how its records become events.
        on_progress: hears of every step.
        poison: what an event that cannot be applied does.
        lock_timeout_s: how long another rebuild of it is waited for.
        accept_differences: switch too where the same version of the tables came to other rows.
        grace: how long the tables that served are kept for `undo`.
        processes: how many fold, where there is enough for them; 1: this one.

    Raises:
        PoisonedEvent: with `Poison.STOP`, an event cannot be applied; everything is as it was.
        RebuildDiffers: the new rows are not those that serve; what was built waits for the next
            `replay` with `accept_differences`.
        PostgresAway: the database is gone, or takes nothing.
        PartFailed: one of the processes ended too early.
        AnotherIsActive: another rebuild of it is running, or readers never let the switch through.
        LogUnavailable: the log cannot be read.
        LogMismatch: the log was made anew meanwhile.
    """
    schemas = Schemas(model.name)
    async with AsyncExitStack() as stack:
        stack.enter_context(telling_of_postgres())
        connections = [
            await stack.enter_async_context(rebuilding(dsn, schemas, schemas.rebuild))
            for _ in range(2)
        ]
        connection, beside = connections
        await become_the_one(connection, schemas, lock_timeout_s)
        building = _Building(
            dsn=dsn,
            connection=connection,
            beside=beside,
            schemas=schemas,
            model=model,
            log=log,
            decoding=decoding,
            applier=Applier(connection, schemas.rebuild, model, poison=poison),
            on_progress=on_progress,
            processes=processes,
        )
        try:
            with collecting_rarely():
                return await building.build(accept_differences=accept_differences, grace=grace)
        except PoisonedEvent:
            # The code has to change before it can be applied, and then nothing here is of use.
            await drop(connection, schemas.rebuild)
            raise


@dataclass(slots=True)
class _Building:
    dsn: str
    connection: Connection[Record]
    beside: Connection[Record]
    schemas: Schemas
    model: ReadModel[Any]
    log: EventLog
    decoding: Decoding
    applier: Applier[Any]
    on_progress: Callable[[Progress], None]
    processes: int
    catching_up: CatchingUp = field(init=False)
    began: float = field(default_factory=time.monotonic)
    began_at: int = 0
    end: int = 0

    def __post_init__(self) -> None:
        self.catching_up = CatchingUp(
            self.dsn,
            self.connection,
            self.beside,
            self.schemas,
            self.schemas.rebuild,
            self.model,
            self.log,
            self.decoding,
            self.applier,
            self._tell,
        )

    async def build(self, *, accept_differences: bool, grace: timedelta) -> Rebuilt:
        await sweep(self.connection, self.schemas)
        serving = await serving_of(self.connection, self.schemas, self.model, self.log)
        if isinstance(serving, LogMismatch) and not accept_differences:
            raise _of_another_log(self.model.name, serving)
        checkpoint = await begin_or_go_on(self.connection, self.schemas, self.model, self.log)
        self.began_at = checkpoint.position
        self.end = await self.log.last_position()
        self._tell(checkpoint.position)
        await self.applier.begin()
        checkpoint = await self.catching_up.levelled(checkpoint)
        serving = await serving_of(self.connection, self.schemas, self.model, self.log)
        comparison = None
        if isinstance(serving, Serving):
            checkpoint, comparison = await self._compared(checkpoint, serving)
            _judge(comparison, self.model.name, accept_differences=accept_differences)
        switch = Switch(
            connection=self.connection,
            schemas=self.schemas,
            incoming=self.schemas.rebuild,
            may_go_back=isinstance(serving, LogMismatch),
            catch_up=self.catching_up.project,
            grace=grace,
        )
        for _ in range(_TRIES):
            self.end = await self.log.last_position()
            checkpoint = await self._catch_up(checkpoint, self.end)
            position = await switch.tried(checkpoint)
            if position is not None:
                took_s = time.monotonic() - self.began
                _log.info("rebuilt", read_model=self.model.name, position=position)
                return Rebuilt(
                    position, self.applier.parked_count, took_s, self.began_at, comparison
                )
            await self.applier.begin()  # what it parked in a try that was taken back, is not
            await asyncio.sleep(_PAUSE_S)
        raise AnotherIsActive(
            f"readers of {self.model.name} held its tables during {_TRIES} tries to switch; "
            "what was built is kept: try again when no long query runs"
        )

    async def _catch_up(self, checkpoint: Checkpoint, end: int) -> Checkpoint:
        parts = parts_for(end - checkpoint.position, self.processes)
        return await self.catching_up.to(checkpoint, end, parts=parts)

    def _tell(self, position: int) -> None:
        took_s = time.monotonic() - self.began
        self.end = max(self.end, position)
        self.on_progress(Progress(position, self.end, took_s, self.began_at))

    async def _compared(
        self, checkpoint: Checkpoint, serving: Serving
    ) -> tuple[Checkpoint, Comparison | None]:
        """Catch up with the tables that serve, and compare where both are at one position.

        None where they stand behind what is built already, and nobody projects them.
        """
        for _ in range(_TRIES):
            position = await self._serving_position()
            while position - checkpoint.position > _NEAR_EVENTS:
                checkpoint = await self._catch_up(checkpoint, position)
                position = await self._serving_position()
            if position >= checkpoint.position:
                try:
                    async with self.beside.transaction(isolation="repeatable_read"):
                        checkpoint = await self._level(checkpoint)
                        tables = await compare(self.beside, self.schemas, self.model)
                except (asyncpg.LockNotAvailableError, TimeoutError) as error:
                    _log.info("comparing_put_off", read_model=self.model.name, reason=str(error))
                else:
                    return checkpoint, Comparison(checkpoint.position, serving.same_version, tables)
            await asyncio.sleep(_PAUSE_S)
        return checkpoint, None

    async def _level(self, checkpoint: Checkpoint) -> Checkpoint:
        """Bring both to one position, and make that what the transaction of `beside` sees.

        The tables that serve stand still for as long as the last few events take, and no longer: a
        transaction keeps what it sees first, and a savepoint gives back the locks taken after it.
        """
        async with asyncio.timeout(STANDSTILL_S):
            standstill = self.beside.transaction()
            await standstill.start()
            await self.beside.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
            table = f'"{self.schemas.serving}".projection_checkpoint'
            await self.beside.execute(f"lock table {table} in share mode")
            checkpoint = await self.catching_up.project(checkpoint, await self._serving_position())
            await self.beside.fetchval("select 1")
            await standstill.rollback()
        return checkpoint

    async def _serving_position(self) -> int:
        table = f'"{self.schemas.serving}".projection_checkpoint'
        position: int = await self.connection.fetchval(f"select position from {table}")  # noqa: S608 - our own name
        return position


def _of_another_log(model_name: str, why: LogMismatch) -> RebuildDiffers:
    return RebuildDiffers(
        f"read model {model_name}: {why}. A rebuild from this log would take away what only the "
        "other one told, so nothing was built. If the log was lost, bring it back (velro restore); "
        f"if this one is right, go on with: velro replay {model_name} --accept-differences"
    )


def _judge(comparison: Comparison | None, model_name: str, *, accept_differences: bool) -> None:
    if comparison is None or comparison.same:
        return
    differences = "; ".join(str(table) for table in comparison.tables if not table.same)
    _log.info("rebuild_differs", read_model=model_name, differences=differences)
    if comparison.same_version and not accept_differences:
        raise RebuildDiffers(
            f"at position {comparison.position} the rebuilt {model_name} read model is not what "
            f"serves, though both are of one version, so one of them is wrong. {differences}. "
            "Nothing was switched. If the log is right, go on with: "
            f"velro replay {model_name} --accept-differences"
        )
