"""A service's database: what keeps a commit, and whether there is room to connect."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from shared.postgres.connecting import close, connect
from shared.postgres.queries import Queries
from velro.doctor.clocks import judged_skew
from velro.doctor.findings import Part, Verdict, green, red, yellow

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asyncpg import Record

DOCTOR: Final = Queries(Path(__file__).parent / "doctor.sql")
_USED_YELLOW: Final = 0.8


@dataclass(frozen=True, slots=True)
class Database:
    """What a service's database says of itself.

    Attributes:
        settings, connections: rows of doctor.sql.
        clock: its moment, between the two of ours.
        connections_a_process: how many one process of the service opens at the most.
    """

    settings: Record
    connections: Record
    clock: tuple[datetime, datetime, datetime]
    connections_a_process: int


def postgres_part(service: str, dsn: str, *, connections_a_process: int) -> Part[Any]:
    """The database of one service."""

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Database]:
        connection = await connect(dsn, schema="public", application_name="velro doctor")
        try:
            settings = await DOCTOR.row(connection, "settings")
            connections = await DOCTOR.row(connection, "connections")
            before = datetime.now(UTC)
            theirs = await DOCTOR.value(connection, "clock")
            clock = (theirs, before, datetime.now(UTC))
        finally:
            await close(connection)
        assert settings is not None, "one row, whatever is so"
        assert connections is not None, "one row, whatever is so"
        yield Database(settings, connections, clock, connections_a_process)

    return Part(
        name=f"postgres of {service}",
        opened=opened,
        checks={
            "fsync": _fsync,
            "synchronous_commit": _synchronous_commit,
            "connections": _connections,
            "clock": _clock,
        },
        advice=f"see that it runs, and that VELRO_{service.upper()}_POSTGRES_DSN leads to it",
    )


async def _fsync(database: Database) -> Verdict:
    for setting in ("fsync", "full_page_writes"):
        if not database.settings[setting]:
            return red(
                f"{setting} is off: a power failure can leave the tables corrupt without a word",
                f"set {setting} = on, and rebuild the read models with `velro replay`",
            )
    return green(f"on, PostgreSQL {database.settings['version']}")


async def _synchronous_commit(database: Database) -> Verdict:
    value = database.settings["synchronous_commit"]
    if value == "off":
        return yellow(
            "off: a power failure takes the last commits, and readers see the tables go back",
            "set synchronous_commit = on for the service's role",
        )
    return green(value)


async def _connections(database: Database) -> Verdict:
    settings, used = database.settings, int(database.connections["used"])
    most = settings["max_connections"] - settings["reserved"]
    left, needed = most - used, database.connections_a_process
    found = f"{used} of {most} in use, {database.connections['ours']} of them by Velro"
    advice = "raise max_connections, or run fewer replicas or a pooler in session mode"
    if left < needed:
        return red(f"{found}: another process of the service needs up to {needed}", advice)
    if used > _USED_YELLOW * most:
        return yellow(found, advice)
    return green(f"{found}; a process of the service needs up to {needed}")


async def _clock(database: Database) -> Verdict:
    return judged_skew(*database.clock)
