"""Switching back to the tables that served before the last switch.

They stood still meanwhile. First they are projected up to where the others are, beside them, so
that no reader meets an older row after a newer one; that takes as long as the events since the
switch do, not as a rebuild. What is switched away from is kept in turn.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from shared.event_log.port import LogMismatch
from shared.postgres.connecting import close, connect
from shared.projection.applying import Applier, Poison
from shared.projection.catching_up import project
from shared.projection.errors import AnotherIsActive, NothingToUndo
from shared.projection.rebuild_schemas import (
    GRACE,
    REBUILD,
    Schemas,
    become_the_one,
    serving_of,
)
from shared.projection.rebuild_switch import Switch
from shared.projection.tables import (
    QUERIES,
    Checkpoint,
    read_checkpoint,
    recognise,
    schema_fingerprint,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from asyncpg import Connection, Record

    from shared.event_log.port import EventLog
    from shared.projection.batch import Decoding
    from shared.projection.port import ReadModel

_TRIES: Final = 60
_PAUSE_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Undone:
    """What an undoing did.

    Attributes:
        position: where the read model stands now.
        caught_up: how many events the tables had missed.
        parked: how many events are put aside in it.
    """

    position: int
    caught_up: int
    parked: int
    took_s: float


async def undo(
    dsn: str,
    log: EventLog,
    model: ReadModel[Any],
    decoding: Decoding,
    *,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    lock_timeout_s: float = 10.0,
    grace: timedelta = GRACE,
) -> Undone:
    """Let the tables serve again that the last switch replaced. A second undoing takes it back.

    `on_progress` hears the position reached and the one to reach.

    Raises:
        NothingToUndo: there are none, or they are of another version of the read model.
        LogMismatch: they hold events of another log.
        AnotherIsActive: a rebuild is running, or readers never let the switch through.
        LogUnavailable: the log cannot be read.
    """
    schemas = Schemas(model.name)
    connection = await connect(
        dsn, schema=schemas.previous, application_name=f"velro replay --undo {model.name}"
    )
    try:
        began = time.monotonic()
        await become_the_one(connection, schemas, lock_timeout_s)
        checkpoint = first = await _replaced(connection, schemas, model)
        await recognise(log, checkpoint)
        applier = Applier(connection, schemas.previous, model, poison=Poison.PARK)
        await applier.begin()

        async def catch_up(at: Checkpoint, end: int) -> Checkpoint:
            return await project(
                applier, log, decoding, at, until=end, tell=lambda done: on_progress(done, end)
            )

        serving = await serving_of(connection, schemas, model, log)
        switch = Switch(
            connection=connection,
            schemas=schemas,
            incoming=schemas.previous,
            may_go_back=isinstance(serving, LogMismatch),
            catch_up=catch_up,
            grace=grace,
        )
        for _ in range(_TRIES):
            checkpoint = await catch_up(checkpoint, await log.last_position())
            position = await switch.tried(checkpoint)
            if position is not None:
                return Undone(
                    position=position,
                    caught_up=position - first.position,
                    parked=applier.parked_count,
                    took_s=time.monotonic() - began,
                )
            await applier.begin()  # what it parked in a try that was taken back, is not
            await asyncio.sleep(_PAUSE_S)
        raise AnotherIsActive(
            f"readers of {model.name} held its tables during {_TRIES} tries to switch back; "
            "nothing was changed, try again when no long query runs"
        )
    finally:
        await close(connection)


async def _replaced(
    connection: Connection[Record], schemas: Schemas, model: ReadModel[Any]
) -> Checkpoint:
    if not await REBUILD.value(
        connection, "exists_as", schema_name=schemas.previous, table_name="replaced"
    ):
        raise NothingToUndo(
            f"no replaced tables of {model.name} are kept: none were replaced, or their time is "
            f"over. Rebuild it with: velro replay {model.name}"
        )
    found = await QUERIES.row(connection, "checkpoint")
    if found is None or found["schema_fingerprint"] != schema_fingerprint(model):
        raise NothingToUndo(
            f"the tables of {model.name} that were replaced are of another version of it; "
            "switch back with the version of Velro that made them"
        )
    return await read_checkpoint(connection)
