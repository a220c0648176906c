"""The backlog as a person sees it, from Postgres."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.errors import in_words
from shared.postgres.connecting import POSTGRES_AWAY, away
from shared.postgres.queries import Queries
from storage_svc.adapters.postgres_backlog import TABLES_GONE
from storage_svc.application.backlog import BacklogUnavailable, OutputRef
from storage_svc.application.reporting import BacklogSummary, QuarantinedOutput, WaitingOutput
from storage_svc.domain.policies import AT_RISK_FACTOR
from storage_svc.read_model.model import HERE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from asyncpg import Pool, Record

    from shared.contracts.reasons import ReasonCode

# What a slow copy is taken to last while none has been seen.
_DEFAULT_COPY_S = 5.0


class PostgresReport:
    """A `BacklogReport` over the tables that the projection fills."""

    def __init__(self, pool: Pool[Record]) -> None:
        self._pool = pool
        self._queries = Queries(HERE / "report.sql")

    async def summary(self, now: datetime) -> BacklogSummary:
        """The backlog in one look; see the port."""
        (row,) = await self._rows(
            "summary", now=now, at_risk_factor=AT_RISK_FACTOR, default_copy_s=_DEFAULT_COPY_S
        )
        reasons = await self._rows("reasons")
        return BacklogSummary(
            pending=row["pending"],
            at_risk=row["at_risk"],
            overdue=row["overdue"],
            running=row["running"],
            soonest_death=row["soonest_death"],
            stored=row["stored"],
            stored_bytes=row["stored_bytes"],
            awaiting_link=row["awaiting_link"],
            lost=row["lost"],
            quarantined=row["quarantined"],
            p95_copy_s=row["p95_s"],
            reasons={reason["reason"]: reason["outputs"] for reason in reasons},
        )

    async def waiting(
        self,
        now: datetime,
        *,
        max_rows: int,
        dies_before: datetime | None = None,
        reason: ReasonCode | None = None,
    ) -> list[WaitingOutput]:
        """What waits; see the port."""
        rows = await self._rows(
            "waiting",
            now=now,
            max_rows=max_rows,
            dies_before=dies_before,
            reason=reason.value if reason else None,
        )
        return [_waiting(row, row["next_attempt_at"], running=bool(row["running"])) for row in rows]

    async def lost(
        self, *, max_rows: int, reasons: Sequence[ReasonCode] | None = None
    ) -> list[WaitingOutput]:
        """What was given up on; see the port."""
        wanted = None if reasons is None else [reason.value for reason in reasons]
        rows = await self._rows("lost", max_rows=max_rows, reasons=wanted)
        return [_waiting(row, row["settled_at"], running=False) for row in rows]

    async def quarantined(self, *, max_rows: int) -> list[QuarantinedOutput]:
        """What a person should look at; see the port."""
        return [
            QuarantinedOutput(
                ref=OutputRef(row["generation_id"], row["output_index"]),
                user_id=row["user_id"],
                provider=row["provider"],
                source_url=row["source_url"],
                source_host=row["source_host"],
                looks_like=row["media_type"],
                detail=row["detail"],
                quarantined_at=row["settled_at"],
                dies_at=row["dies_at"],
            )
            for row in await self._rows("quarantined", max_rows=max_rows)
        ]

    async def _rows(self, name: str, **parameters: object) -> list[Record]:
        try:
            async with self._pool.acquire() as connection:
                return await self._queries.rows(connection, name, **parameters)
        except POSTGRES_AWAY as error:
            raise BacklogUnavailable(away(error)) from error
        except TABLES_GONE as error:
            raise BacklogUnavailable(in_words(error)) from error


def _waiting(row: Record, at: datetime, *, running: bool) -> WaitingOutput:
    return WaitingOutput(
        ref=OutputRef(row["generation_id"], row["output_index"]),
        user_id=row["user_id"],
        provider=row["provider"],
        source_host=row["source_host"],
        dies_at=row["dies_at"],
        attempts=row["attempts"],
        at=at,
        state=row["state"],
        reason=row["reason"],
        detail=row["detail"],
        running=running,
    )
