"""The backlog in Postgres: leases as rows, taken with `for update skip locked`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg

from shared.errors import in_words
from shared.postgres.connecting import POSTGRES_AWAY, away
from shared.postgres.queries import Queries
from storage_svc.application.backlog import BacklogUnavailable, Lease, OutputRef
from storage_svc.read_model.model import HERE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
    from datetime import datetime

    from asyncpg import Pool, Record
    from asyncpg.pool import PoolConnectionProxy

    from shared.contracts.reasons import ReasonCode

# No projector has made them yet, or a rebuild is about to put others in their place.
TABLES_GONE = (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError)

# So many rows become ready in one statement: a burst of retries is made ready in a few, and no
# statement holds locks for long.
_PROMOTED_AT_ONCE = 2_000


class PostgresBacklog:
    """A `Backlog` over the tables that the projection fills.

    Args:
        pool: its connections find the read model's schema by their search path.
    """

    def __init__(self, pool: Pool[Record]) -> None:
        self._pool = pool
        self._queries = Queries(HERE / "lease.sql")

    async def lease(
        self,
        *,
        owner: str,
        now: datetime,
        until: datetime,
        max_rows: int,
        closed_hosts: Collection[str] = (),
        probed_hosts: Collection[str] = (),
    ) -> list[Lease]:
        """Take outputs that are due; see the port."""
        wanted = {"owner": owner, "now": now, "until": until}
        others = wanted | {"closed_hosts": [*closed_hosts, *probed_hosts]}
        async with self._leasing() as connection:
            await self._queries.run(connection, "promote", now=now, max_rows=_PROMOTED_AT_ONCE)
            leases: list[Lease] = []
            if probed_hosts:
                rows = await self._queries.rows(
                    connection,
                    "lease_probes",
                    **wanted,
                    hosts=list(probed_hosts),
                    max_rows=max_rows,
                )
                leases += map(_lease, rows)
            for name, backwards in (("lease_living", False), ("lease_dead", True)):
                if left := max_rows - len(leases):
                    rows = await self._queries.rows(connection, name, **others, max_rows=left)
                    leases += map(_lease, sorted(rows, key=_order, reverse=backwards))
            return leases

    async def lease_generation(
        self, generation_id: str, *, owner: str, now: datetime, until: datetime
    ) -> list[Lease]:
        """Take what is pending of one generation; see the port."""
        async with self._leasing() as connection:
            rows = await self._queries.rows(
                connection,
                "lease_one",
                generation_id=generation_id,
                owner=owner,
                now=now,
                until=until,
            )
        return [_lease(row) for row in sorted(rows, key=lambda row: int(row["output_index"]))]

    async def renew(
        self, refs: Iterable[OutputRef], *, owner: str, until: datetime
    ) -> set[OutputRef]:
        """Hold leases longer; see the port."""
        async with self._leasing() as connection:
            rows = await self._queries.rows(
                connection, "renew", owner=owner, until=until, **_columns(refs)
            )
        return {OutputRef(row["generation_id"], row["output_index"]) for row in rows}

    async def give_back(self, refs: Iterable[OutputRef], *, owner: str) -> None:
        """Let somebody else take them; see the port."""
        async with self._leasing() as connection:
            await self._queries.run(connection, "give_back", owner=owner, **_columns(refs))

    async def release(
        self, reasons: Sequence[ReasonCode], *, failed_before: datetime, max_rows: int
    ) -> int:
        """Make due what waits for these reasons; see the port."""
        released = 0
        async with self._connection() as connection:
            for reason in reasons:
                released += await self._queries.run(
                    connection,
                    "release",
                    reason=reason.value,
                    failed_before=failed_before,
                    max_rows=max_rows - released,
                )
        return released

    async def next_due(self) -> datetime | None:
        """When something can be taken without any news; see the port."""
        async with self._connection() as connection:
            due: datetime | None = await self._queries.value(connection, "next_due")
        return due

    @asynccontextmanager
    async def _leasing(self) -> AsyncGenerator[PoolConnectionProxy[Record]]:
        """A transaction that does not wait for the disk: a lease that a crash of Postgres takes
        away is work that somebody does twice, and twice is as good as once.
        """  # noqa: D205 - one sentence, longer than a line
        async with self._connection() as connection, connection.transaction():
            await connection.execute("set local synchronous_commit = off")
            yield connection

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[PoolConnectionProxy[Record]]:
        try:
            async with self._pool.acquire() as connection:
                yield connection
        except POSTGRES_AWAY as error:
            raise BacklogUnavailable(away(error)) from error
        except TABLES_GONE as error:
            raise BacklogUnavailable(in_words(error)) from error


def _order(row: Record) -> tuple[datetime, int]:
    return (row["deadline"], row["turn"])


def _lease(row: Record) -> Lease:
    return Lease(
        generation_id=row["generation_id"],
        output_index=row["output_index"],
        user_id=row["user_id"],
        provider=row["provider"],
        source_url=row["source_url"],
        source_host=row["source_host"],
        dies_at=row["dies_at"],
        attempts=row["attempts"],
    )


def _columns(refs: Iterable[OutputRef]) -> dict[str, list[str] | list[int]]:
    names = list(refs)
    return {
        "generation_ids": [ref.generation_id for ref in names],
        "output_indexes": [ref.output_index for ref in names],
    }
