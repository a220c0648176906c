"""Looking at the backlog."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from shared.printing import printer
from storage_svc.adapters import terminal
from storage_svc.composition import Service, now
from storage_svc.domain.policies import AT_RISK_FACTOR

if TYPE_CHECKING:
    from shared.contracts.reasons import ReasonCode
    from storage_svc.settings import StorageSettings


async def backlog(
    settings: StorageSettings,
    *,
    at_risk: bool,
    reason: ReasonCode | None,
    lost: bool,
    limit: int,
    as_json: bool,
) -> None:
    """Show the backlog as the read model has it."""
    console = printer()
    async with Service.assembled(settings) as service:
        summary = await service.report.summary(now())
        before = now() + timedelta(seconds=AT_RISK_FACTOR * summary.p95_copy_s) if at_risk else None
        if lost:
            outputs = await service.report.lost(
                max_rows=limit, reasons=[reason] if reason else None
            )
        else:
            outputs = await service.report.waiting(
                now(), max_rows=limit, dies_before=before, reason=reason
            )
    if as_json:
        terminal.print_json(console, terminal.backlog_as_data(summary, outputs))
    else:
        terminal.print_backlog(console, summary, outputs, lost=lost)
