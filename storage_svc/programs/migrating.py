"""Copying by hand: batch after batch, or one generation now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shared.printing import printer
from shared.program import on_signals
from storage_svc.adapters import terminal
from storage_svc.application.migrate import BatchSummary, Migration
from storage_svc.application.store_output import LostNow
from storage_svc.composition import Service, now

if TYPE_CHECKING:
    from storage_svc.settings import CopySettings, StorageSettings

EXIT_LOST: Final = 3


async def migrate(
    settings: StorageSettings,
    copying: CopySettings,
    *,
    batch_size: int,
    interval_s: float | None,
    as_json: bool,
) -> int:
    """Work off the backlog beside a running service, or without one; the exit code."""
    console = printer()
    async with (
        Service.assembled(settings) as service,
        service.storing(copying) as store,
        service.projecting(),
    ):

        async def shown(batch: BatchSummary) -> None:
            left = await service.report.summary(now())
            if as_json:
                terminal.print_json(console, terminal.summary_as_data(batch, left))
            else:
                terminal.print_summary(console, batch, left)

        migration = Migration(
            workers=lambda summary: service.workers(store, summary.add),
            level=service.level,
            batch_size=batch_size,
            shown=shown,
            next_due=service.backlog.next_due,
            clock=now,
        )
        on_signals(migration.stop)
        if interval_s is None:
            done = await migration.once()
        else:
            done = await migration.continuously(interval_s)
        return EXIT_LOST if done.lost else 0


async def retry(settings: StorageSettings, copying: CopySettings, generation_id: str) -> int:
    """Copy one generation's outputs now; the exit code."""
    async with Service.assembled(settings) as service, service.storing(copying) as store:
        outcomes = await service.retrying(store)(generation_id)
    terminal.print_outcomes(printer(), generation_id, outcomes)
    return EXIT_LOST if any(isinstance(outcome, LostNow) for _, outcome in outcomes) else 0
