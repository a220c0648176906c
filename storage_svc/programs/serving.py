"""The service itself: projects and copies until it is told to stop."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog

from shared.program import on_signals
from shared.projection.errors import NotReached
from shared.serving import serving
from storage_svc.adapters.http_health import Health, health_app
from storage_svc.composition import Service, archiver_of, trimmer_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shared.archive.settings import ArchiveSettings
    from shared.projection.waiting import PositionWatch
    from storage_svc.application.workers import Workers
    from storage_svc.settings import CopySettings, StorageSettings

_log = structlog.get_logger(__name__)

_NEWS_S: Final = 15.0


async def serve(settings: StorageSettings, copying: CopySettings, archive: ArchiveSettings) -> None:
    """Project, copy and archive until a signal; then let running copies end, or give them back."""
    async with (
        Service.assembled(settings) as service,
        service.storing(copying, staying=True) as store,
    ):
        workers = service.workers(store)
        health = Health(service.connection, service.log, service.projector, service.watch, workers)
        stopped = asyncio.Event()
        on_signals(stopped.set)
        async with (
            service.projector.running() as projecting,
            service.watch.running(),
            _archiving(settings, copying, archive) as archiving,
            serving(
                health_app(health), host=settings.storage_host, port=settings.storage_port
            ) as port,
        ):
            _log.info("serving", host=settings.storage_host, port=port, owner=service.owner)
            working = asyncio.create_task(workers.run(), name="workers")
            waking = asyncio.create_task(_wake(workers, service.watch), name="wake workers")
            stopping = asyncio.create_task(stopped.wait(), name="stop")
            parts = (projecting, working, waking, *archiving)
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


@asynccontextmanager
async def _archiving(
    settings: StorageSettings, copying: CopySettings, archive: ArchiveSettings
) -> AsyncGenerator[tuple[asyncio.Task[None], ...]]:
    """Archive while the context is open, and trim, where settings say so.

    Both may be cut off at any point.
    """
    if not archive.enabled:
        yield ()
        return
    async with AsyncExitStack() as stack:
        archiver = await stack.enter_async_context(archiver_of(settings, copying.bucket, archive))
        tasks = [asyncio.create_task(archiver.run(), name="archiver")]
        if archive.trim_after_days is not None:
            after = timedelta(days=archive.trim_after_days)
            trimmer = await stack.enter_async_context(
                trimmer_of(settings, copying.bucket, archive, after=after)
            )
            tasks.append(asyncio.create_task(trimmer.run(), name="trimmer"))
        try:
            yield tuple(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def _wake(workers: Workers, watch: PositionWatch) -> None:
    """Each time the backlog has moved, there may be work."""
    while True:
        seen = watch.position
        workers.wake()
        try:
            await watch.wait_for(seen + 1, timeout_s=_NEWS_S)
        except NotReached:
            continue
