"""What was refused for its type: looking at it, and a person's word on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.printing import printer
from storage_svc.adapters import terminal
from storage_svc.application import judge_quarantined
from storage_svc.application.store_output import LostNow
from storage_svc.composition import Service, now
from storage_svc.programs.migrating import EXIT_LOST

if TYPE_CHECKING:
    from storage_svc.settings import CopySettings, StorageSettings


async def show(settings: StorageSettings, *, limit: int, as_json: bool) -> None:
    """Show what is in quarantine, as the read model has it."""
    console = printer()
    async with Service.assembled(settings) as service:
        outputs = await service.report.quarantined(max_rows=limit)
    if as_json:
        terminal.print_json(console, terminal.quarantine_as_data(outputs))
    else:
        terminal.print_quarantine(console, outputs, now=now())


async def release(
    settings: StorageSettings, copying: CopySettings, generation_id: str, index: int | None
) -> int:
    """Store quarantined outputs as bytes of no type; the exit code."""
    async with Service.assembled(settings) as service, service.storing(copying) as store:
        released = await judge_quarantined.release(
            service.recorder, service.retrying(store), generation_id, index
        )
    terminal.print_released(printer(), released)
    lost = any(isinstance(each.outcome, LostNow) for each in released)
    return EXIT_LOST if lost else 0


async def reject(
    settings: StorageSettings, generation_id: str, index: int | None, why: str
) -> None:
    """Refuse quarantined outputs for good."""
    async with Service.assembled(settings) as service:
        indexes = await judge_quarantined.reject(service.recorder, generation_id, why, index)
    for each in indexes:
        printer().print(f"{generation_id} output {each}: rejected for good")
