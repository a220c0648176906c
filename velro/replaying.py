"""Rebuild read models from the log, with a bar to watch."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from generation_svc.read_model.model import GenerationModel
from generation_svc.settings import GenerationSettings
from shared.event_log.jetstream import JetStreamLog
from shared.messaging.connection import connected
from shared.program import settings_of
from shared.projection.batch import Decoding
from shared.projection.rebuild import Rebuilt, replay
from storage_svc.read_model.model import BacklogModel
from storage_svc.settings import StorageSettings

if TYPE_CHECKING:
    from rich.console import Console

    from shared.projection.port import ReadModel
    from shared.projection.rebuild import Progress as Replayed
    from shared.settings import LogSettings


class ReadModelName(StrEnum):
    """The read models there are."""

    GENERATION = "generation"
    STORAGE = "storage"


async def replay_with_bar(name: ReadModelName, console: Console) -> Rebuilt:
    """Rebuild one read model beside the services that use it.

    Raises:
        PoisonedEvent: an event cannot be applied; everything is as it was.
        TryLater: the log, or another rebuild, is in the way.
    """
    settings, dsn, model = _of(name)
    progress = Progress(
        TextColumn(f"  replaying {name}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}, {task.fields[rate]:,.0f} events/s"),
        TimeRemainingColumn(),
        console=console,
    )
    async with connected(settings.nats_url.split(","), name="velro replay") as connection:
        log = JetStreamLog(connection, settings.subjects, stream=settings.stream)
        with progress:
            task = progress.add_task("", total=1, rate=0.0)

            def show(at: Replayed) -> None:
                progress.update(task, completed=at.done, total=at.total, rate=at.events_per_s)

            rebuilt = await replay(dsn, log, model, Decoding(settings.subjects), on_progress=show)
    console.print(
        f"  {name} is rebuilt up to position {rebuilt.position:,}, in {rebuilt.took_s:.1f} s"
    )
    return rebuilt


def _of(name: ReadModelName) -> tuple[LogSettings, str, ReadModel[Any]]:
    match name:
        case ReadModelName.GENERATION:
            generation = settings_of(GenerationSettings)
            dsn = generation.generation_postgres_dsn.get_secret_value()
            return generation, dsn, GenerationModel()
        case ReadModelName.STORAGE:
            storage = settings_of(StorageSettings)
            return storage, storage.storage_postgres_dsn.get_secret_value(), BacklogModel()
