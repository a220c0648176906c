"""A read model: does it follow the log, and is it that log."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from shared.archive.opening import archived_log
from shared.event_log.port import LogMismatch
from shared.messaging.access import NatsAccess
from shared.messaging.connection import connected
from shared.postgres.connecting import close, connect
from shared.projection.errors import SchemaOutdated
from shared.projection.tables import QUERIES, read_checkpoint, recognise, schema_fingerprint
from velro.doctor.findings import Part, Verdict, green, red, yellow
from velro.doctor.postgres import DOCTOR

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asyncpg import Connection, Record

    from shared.archive.archived_log import ArchivedLog
    from shared.projection.port import ReadModel
    from velro.read_models import ReadModelPlace

# A batch takes some ten milliseconds, so events waiting this long with no move are not being read.
_LOOK_AGAIN_S: Final = 1.5
_BEHIND_YELLOW: Final = 1000


@dataclass(frozen=True, slots=True)
class Projection:
    """A read model between its log and its tables; one check at a time uses the connection."""

    model: ReadModel[Any]
    log: ArchivedLog
    connection: Connection[Record]
    turn: asyncio.Lock


def projection_part(place: ReadModelPlace) -> Part[Any]:
    """One read model."""
    settings, model = place.settings, place.model

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Projection]:
        access = NatsAccess.of(settings)
        async with (
            connected(access, name="velro doctor", timeout_s=5.0) as nats,
            archived_log(nats, settings) as log,
        ):
            connection = await connect(
                place.dsn, schema=model.name, application_name="velro doctor"
            )
            try:
                yield Projection(model, log, connection, asyncio.Lock())
            finally:
                await close(connection)

    return Part(
        name=f"read model {model.name}",
        opened=opened,
        checks={"version": _version, "log": _log, "lag": _lag, "parked": _parked},
        advice=f"start the service that keeps it; `velro replay {model.name}` makes it anew",
    )


async def _version(projection: Projection) -> Verdict:
    model = projection.model
    async with projection.turn:
        if not await QUERIES.value(projection.connection, "exists_in", schema_name=model.name):
            return red("there are no tables", "start the service that keeps them")
        found = await DOCTOR.row(projection.connection, "checkpoint_age")
    if found is None or found["schema_fingerprint"] != schema_fingerprint(model):
        return red("its tables belong to another version", f"`velro replay {model.name}`")
    return green("its tables are those of this version")


async def _log(projection: Projection) -> Verdict:
    async with projection.turn:
        checkpoint = await read_checkpoint(projection.connection)
    try:
        await recognise(projection.log, checkpoint)
    except (LogMismatch, SchemaOutdated) as error:
        return red(
            f"{error}",
            "the services do nothing on it. If the log was lost, bring it back with `velro "
            "restore`; if this one is right, accept it with "
            f"`velro replay {projection.model.name} --accept-differences`",
        )
    return green(f"the event at position {checkpoint.position} is the one that was projected")


async def _lag(projection: Projection) -> Verdict:
    name = projection.model.name
    async with projection.turn:
        active = await DOCTOR.value(projection.connection, "projector_active", schema_name=name)
        end = await projection.log.last_position()
        before = await DOCTOR.row(projection.connection, "checkpoint_age")
        if before is not None and before["position"] < end:
            await asyncio.sleep(_LOOK_AGAIN_S)
        after = await DOCTOR.row(projection.connection, "checkpoint_age")
    if before is None or after is None:
        return red("there is no checkpoint", f"`velro replay {name}`")
    behind = max(end - after["position"], 0)
    found = f"{behind:,} events behind position {end:,}"
    if not active:
        return red(f"{found}, and no process projects", "start the service that keeps it")
    if behind and after["position"] == before["position"]:
        return red(
            f"{found}, and has not moved for {after['stands_s']:.0f} s",
            "the service's log lines say why; its /readyz names the part",
        )
    if behind > _BEHIND_YELLOW:
        return yellow(f"{found}, and catching up", "wait; where it stays so, look at the load")
    return green(found)


async def _parked(projection: Projection) -> Verdict:
    async with projection.turn:
        count = await QUERIES.value(projection.connection, "parked_count")
    if count:
        return yellow(
            f"{count:,} events could not be applied; their generations stand still",
            "`velro parked list` says why; mend it, then `velro parked retry --all`",
        )
    return green("none")
