"""What waits to be stored: whether all of it will be in time, or a person is needed."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from shared.contracts.reasons import ReasonCode
from shared.postgres.connecting import open_pool
from storage_svc.adapters.postgres_report import PostgresReport
from storage_svc.read_model import model as storage_model
from velro.doctor.findings import Part, Verdict, green, yellow

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from storage_svc.application.reporting import BacklogSummary


def backlog_part(dsn: str) -> Part[Any]:
    """The storage service's work."""

    @asynccontextmanager
    async def opened() -> AsyncGenerator[BacklogSummary]:
        async with await open_pool(
            dsn, schema=storage_model.NAME, application_name="velro doctor"
        ) as pool:
            yield await PostgresReport(pool).summary(datetime.now(UTC))

    return Part(
        name="backlog",
        opened=opened,
        checks={"in time": _in_time, "settings": _settings, "quarantine": _quarantine},
        advice="start the storage service, which keeps the tables",
    )


async def _in_time(summary: BacklogSummary) -> Verdict:
    found = f"{summary.pending:,} outputs wait"
    if summary.at_risk or summary.overdue:
        return yellow(
            f"{found}; the links of {summary.at_risk:,} die before they are sure to be copied, and "
            f"of {summary.overdue:,} should be dead",
            "`storage-svc backlog` names them, and why their copies failed",
        )
    return green(f"{found}, none of them at risk")


async def _settings(summary: BacklogSummary) -> Verdict:
    blocked = summary.reasons.get(ReasonCode.BLOCKED_ADDRESS, 0)
    if blocked:
        return yellow(
            f"{blocked:,} outputs wait that the settings forbid to fetch",
            "`storage-svc backlog` names their hosts and what is wrong; where a host is the "
            "provider's own, add it to VELRO_MEDIA_HOSTS of the storage service and start it again",
        )
    return green("nothing that waits is forbidden by them")


async def _quarantine(summary: BacklogSummary) -> Verdict:
    if summary.quarantined:
        return yellow(
            f"{summary.quarantined:,} outputs are no media, and wait for a person until their "
            "links die",
            "`storage-svc quarantine list`, then release or reject each",
        )
    return green("empty")
