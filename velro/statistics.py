"""How generating and storing went, in one table."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from generation_svc.read_model import model as generation_model
from generation_svc.read_model.queries import GenerationQueries
from generation_svc.settings import GenerationSettings
from shared.postgres.connecting import POSTGRES_AWAY, away, open_pool, telling_why_refused
from shared.printing import printer
from shared.program import run, settings_of
from shared.projection.tables import QUERIES
from storage_svc.adapters.postgres_report import PostgresReport
from storage_svc.read_model import model as storage_model
from storage_svc.settings import StorageSettings
from velro.options import AsJson, duration, use_environment
from velro.read_models import ReadModelAway

if TYPE_CHECKING:
    from generation_svc.read_model.views import Stats
    from storage_svc.application.reporting import BacklogSummary


def stats(
    *,
    since: Annotated[str, typer.Option(help="How far back: 90m, 24h, 7d.")] = "24h",
    as_json: AsJson = False,
) -> None:
    """Show success, storage failures, and the backlog by the time its links still live."""
    use_environment()
    run(_told(duration(since), as_json=as_json))


async def _told(since: timedelta, *, as_json: bool) -> None:
    now = datetime.now(UTC)
    try:
        with telling_why_refused():
            counted, summary, parked = await _counted(since, now)
    except POSTGRES_AWAY as error:
        raise ReadModelAway(away(error)) from error
    console = printer()
    if as_json:
        console.print_json(json.dumps(_as_data(counted, summary) | {"parked": parked}, default=str))
    else:
        console.print(_table(counted, summary, parked, now))


async def _counted(since: timedelta, now: datetime) -> tuple[Stats, BacklogSummary, dict[str, int]]:
    """Generations, the backlog, and parked events by read model."""
    generation_dsn = settings_of(GenerationSettings).generation_postgres_dsn.get_secret_value()
    storage_dsn = settings_of(StorageSettings).storage_postgres_dsn.get_secret_value()
    name = "velro stats"
    async with (
        await open_pool(
            generation_dsn, schema=generation_model.NAME, application_name=name
        ) as reads,
        await open_pool(storage_dsn, schema=storage_model.NAME, application_name=name) as backlog,
    ):
        counted = await GenerationQueries(reads).stats(now - since, now=now)
        summary = await PostgresReport(backlog).summary(now)
        async with reads.acquire() as one, backlog.acquire() as other:
            parked = {
                generation_model.NAME: await QUERIES.value(one, "parked_count"),
                storage_model.NAME: await QUERIES.value(other, "parked_count"),
            }
    return counted, summary, parked


def _as_data(stats: Stats, summary: BacklogSummary) -> dict[str, Any]:
    return {
        "generations": dataclasses.asdict(stats)
        | {
            "success_rate": stats.success_rate,
            "storage_failure_rate": stats.storage_failure_rate,
        },
        "backlog": dataclasses.asdict(summary) | {"reasons": dict(summary.reasons)},
    }


def _table(stats: Stats, summary: BacklogSummary, parked: dict[str, int], now: datetime) -> Table:
    waiting = stats.not_stored
    table = Table("", "", title=f"since {stats.since:%Y-%m-%d %H:%M} UTC", show_header=False)
    table.add_row("generations", f"{stats.generations:,}")
    table.add_row("completed", f"{stats.completed:,} ({_percent(stats.success_rate)})")
    table.add_row("failed, cancelled", f"{stats.failed:,}, {stats.cancelled:,}")
    table.add_row("unfinished", f"{stats.unfinished:,}")
    table.add_row(
        "not stored at once", f"{stats.storage_failed:,} ({_percent(stats.storage_failure_rate)})"
    )
    table.add_section()
    table.add_row("outputs waiting to be stored", f"{summary.pending:,}")
    table.add_row("  at risk", f"{summary.at_risk:,}")
    table.add_row("  soonest link to die", _in(summary.soonest_death, now))
    table.add_row("outputs waiting for a new link", f"{summary.awaiting_link:,}")
    table.add_row("generations waiting, by death of their first link", "")
    table.add_row("  should be dead", f"{waiting.dead:,}")
    table.add_row("  within 10 minutes", f"{waiting.within_10_minutes:,}")
    table.add_row("  within an hour", f"{waiting.within_1_hour:,}")
    table.add_row("  within a day", f"{waiting.within_1_day:,}")
    table.add_row("  later", f"{waiting.later:,}")
    table.add_row("oldest not stored", _ago(waiting.oldest_completed_at, now))
    table.add_section()
    table.add_row("outputs stored later", f"{summary.stored:,} ({summary.stored_bytes:,} bytes)")
    table.add_row("outputs lost", _alarming(summary.lost))
    table.add_row("outputs in quarantine", f"{summary.quarantined:,}")
    table.add_section()
    for read_model, events in parked.items():
        table.add_row(f"events parked, {read_model}", _alarming(events))
    return table


def _alarming(count: int) -> Text:
    return Text(f"{count:,}", "bold red" if count else "")


def _percent(rate: float | None) -> str:
    return "no rate yet" if rate is None else f"{rate:.1%}"


def _in(moment: datetime | None, now: datetime) -> str:
    if moment is None:
        return "none"
    return f"in {_rounded(moment - now)}" if moment > now else f"{_rounded(now - moment)} ago"


def _ago(moment: datetime | None, now: datetime) -> str:
    return "none" if moment is None else f"{_rounded(now - moment)} old"


def _rounded(span: timedelta) -> str:
    return str(timedelta(seconds=round(span.total_seconds())))
