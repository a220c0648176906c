"""Rebuild read models from the log, with a bar to watch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from shared.event_log.jetstream import JetStreamLog
from shared.messaging.connection import connected
from shared.projection.batch import Decoding
from shared.projection.rebuild import Rebuilt, replay
from velro.read_models import read_model_of

if TYPE_CHECKING:
    from rich.console import Console

    from shared.projection.rebuild import Progress as Replayed
    from velro.read_models import ReadModelName


async def replay_with_bar(name: ReadModelName, console: Console) -> Rebuilt:
    """Rebuild one read model beside the services that use it.

    Raises:
        PoisonedEvent: an event cannot be applied; everything is as it was.
        TryLater: the log, or another rebuild, is in the way.
    """
    place = read_model_of(name)
    settings = place.settings
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

            rebuilt = await replay(
                place.dsn, log, place.model, Decoding(settings.subjects), on_progress=show
            )
    console.print(
        f"  {name} is rebuilt up to position {rebuilt.position:,}, in {rebuilt.took_s:.1f} s"
    )
    return rebuilt
