"""What the storage service can be started as: each program from its settings to its end."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from rich.console import Console

from shared.errors import Refused, VelroError
from shared.object_store.s3 import s3_object_store
from shared.program import on_signals
from shared.projection.errors import NotReached
from shared.serving import serving
from storage_svc.adapters import terminal
from storage_svc.adapters.http_health import Health, health_app
from storage_svc.application.migrate import BatchSummary, Migration
from storage_svc.application.retry_outputs import retry_outputs
from storage_svc.application.store_output import LostNow
from storage_svc.composition import Service, now
from storage_svc.domain.policies import AT_RISK_FACTOR

if TYPE_CHECKING:
    from shared.contracts.reasons import ReasonCode
    from shared.projection.waiting import PositionWatch
    from storage_svc.application.workers import Workers
    from storage_svc.settings import CopySettings, StorageSettings

_log = structlog.get_logger(__name__)

EXIT_LOST = 3

_INIT_DEADLINE_S = 60.0
_NEWS_S = 15.0


async def serve(settings: StorageSettings, copying: CopySettings) -> None:
    """Project and copy until a signal; then let running copies end, or give them back."""
    async with Service.assembled(settings) as service, service.storing(copying) as store:
        workers = service.workers(store)
        health = Health(service.connection, service.projector, service.watch, workers)
        stopped = asyncio.Event()
        on_signals(stopped.set)
        async with (
            service.projector.running() as projecting,
            service.watch.running(),
            serving(
                health_app(health), host=settings.storage_host, port=settings.storage_port
            ) as port,
        ):
            _log.info("serving", host=settings.storage_host, port=port, owner=service.owner)
            working = asyncio.create_task(workers.run(), name="workers")
            waking = asyncio.create_task(_wake(workers, service.watch), name="wake workers")
            stopping = asyncio.create_task(stopped.wait(), name="stop")
            parts = (projecting, working, waking)
            await asyncio.wait((*parts, stopping), return_when=asyncio.FIRST_COMPLETED)
            ended_early = [part for part in parts if part.done()]
            workers.stop()
            await asyncio.wait((working,))
            stopping.cancel()
            waking.cancel()
            await asyncio.gather(stopping, waking, return_exceptions=True)
            for part in ended_early:
                part.result()
                raise RuntimeError(f"{part.get_name()} ended by itself")
        _log.info("stopped")


async def _wake(workers: Workers, watch: PositionWatch) -> None:
    """Each time the backlog has moved, there may be work."""
    while True:
        seen = watch.position
        workers.wake()
        try:
            await watch.wait_for(seen + 1, timeout_s=_NEWS_S)
        except NotReached:
            continue


async def init(settings: StorageSettings, copying: CopySettings) -> None:
    """See that the log, the tables and the bucket are there, waiting for servers that start.

    Raises:
        VelroError: what is missing, when the time is over.
    """
    give_up_at = asyncio.get_running_loop().time() + _INIT_DEADLINE_S
    while True:
        try:
            return await _looked_at_all(settings, copying)
        except Refused:
            raise
        except VelroError as error:
            if asyncio.get_running_loop().time() > give_up_at:
                raise
            _log.info("waiting", reason=str(error))
            await asyncio.sleep(1.0)


async def _looked_at_all(settings: StorageSettings, copying: CopySettings) -> None:
    async with Service.assembled(settings) as service, service.projecting():
        await service.level()
    async with s3_object_store(copying.bucket) as bucket:
        # Listing finds a missing bucket and refused credentials, and changes nothing.
        await anext(bucket.keys(prefix="velro-init/"), None)


async def migrate(
    settings: StorageSettings,
    copying: CopySettings,
    *,
    batch_size: int,
    interval_s: float | None,
    as_json: bool,
) -> int:
    """Work off the backlog beside a running service, or without one; the exit code."""
    console = Console()
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
    console = Console()
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


async def retry(settings: StorageSettings, copying: CopySettings, generation_id: str) -> int:
    """Copy one generation's outputs now; the exit code."""
    async with Service.assembled(settings) as service, service.storing(copying) as store:
        outcomes = await retry_outputs(
            generation_id,
            recorder=service.recorder,
            backlog=service.backlog,
            store=store,
            clock=now,
            owner=service.owner,
            lease_s=settings.storage_lease_s,
        )
    terminal.print_outcomes(Console(), outcomes)
    return EXIT_LOST if any(isinstance(outcome, LostNow) for _, outcome in outcomes) else 0
