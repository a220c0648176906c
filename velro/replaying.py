"""Rebuild read models from the log, with bars to watch."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from generation_svc.domain.decide import UnknownGeneration
from shared.archive.opening import archived_log
from shared.event_log.jetstream_api import ApiError, NoAnswer
from shared.event_log.jetstream_stream import stream_state
from shared.event_log.port import LogUnavailable
from shared.messaging.access import NatsAccess
from shared.messaging.connection import connected
from shared.projection.applying import Poison
from shared.projection.batch import Decoding
from shared.projection.rebuild import Rebuilt, replay
from shared.projection.rebuild_only import RebuiltOnly, generations_of, rebuild_only
from shared.projection.rebuild_schemas import GRACE
from shared.projection.rebuild_undo import undo
from velro.read_models import ReadModelName, ReadModelPlace, read_model_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from datetime import timedelta

    from nats.aio.client import Client
    from rich.console import Console

    from shared.archive.archived_log import ArchivedLog
    from shared.projection.rebuild import Progress as Replayed
    from shared.settings import LogSettings


@asynccontextmanager
async def log_of(
    settings: LogSettings, *, from_archive: bool = False
) -> AsyncGenerator[ArchivedLog]:
    """The log, over a connection of this command's own.

    What is archived is read from the bucket where that is wished, or where the stream no longer
    has its beginning.

    Raises:
        BrokerUnavailable: no NATS.
        LogUnavailable: no stream.
    """
    async with connected(NatsAccess.of(settings), name="velro replay") as connection:
        from_archive = from_archive or await _trimmed(connection, settings.stream)
        async with archived_log(connection, settings, from_archive=from_archive) as log:
            yield log


async def _trimmed(connection: Client, stream: str) -> bool:
    try:
        return (await stream_state(connection, stream, timeout_s=5.0)).first > 1
    except (ApiError, NoAnswer) as error:
        raise LogUnavailable(f"stream {stream}: {error}") from error


async def replay_with_bars(
    names: Sequence[ReadModelName],
    console: Console,
    *,
    from_archive: bool,
    accept_differences: bool = False,
    grace: timedelta = GRACE,
    poison: Poison = Poison.STOP,
    processes: int = 1,
) -> list[Rebuilt]:
    """Rebuild read models, all at once, beside the services that use them.

    With `from_archive` what is archived is read from there, as the plan said it would be. Each is
    divided among so many processes, where it is worth that.

    Raises:
        PoisonedEvent: with `Poison.STOP`, an event cannot be applied; everything is as it was.
        RebuildDiffers: the rows are not those that serve, and nobody said that this is meant.
        TryLater: the log, or another rebuild, is in the way.
    """
    progress = _bars(console)

    async def one(name: ReadModelName) -> Rebuilt:
        place = read_model_of(name)
        async with log_of(place.settings, from_archive=from_archive) as log:
            source = " from its archive" if log.from_archive else ""
            bar = _bar(progress, f"replaying {name}{source}", "events/s")

            def show(at: Replayed) -> None:
                bar(at.done, at.total, at.events_per_s)

            return await replay(
                place.dsn,
                log,
                place.model,
                Decoding(place.settings.subjects),
                on_progress=show,
                poison=poison,
                accept_differences=accept_differences,
                grace=grace,
                processes=processes,
            )

    tasks: list[asyncio.Task[Rebuilt]] = []
    try:
        with progress:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(name)) for name in names]
    except asyncio.CancelledError:
        console.print("  interrupted: the old tables serve on; the same command goes on from here")
        raise
    finally:
        for name, task in zip(names, tasks, strict=False):
            if task.done() and not task.cancelled() and task.exception() is None:
                _tell(console, name, task.result())
    return [task.result() for task in tasks]


def _tell(console: Console, name: ReadModelName, rebuilt: Rebuilt) -> None:
    begun = f", gone on from {rebuilt.began_at:,}" if rebuilt.began_at else ""
    console.print(
        f"  {name} is rebuilt up to position {rebuilt.position:,}, in {rebuilt.took_s:.1f} s{begun}"
    )
    _tell_parked(console, rebuilt.parked)
    if rebuilt.comparison is None:
        return
    console.print(f"  compared with what served, both at position {rebuilt.comparison.position:,}:")
    for table in rebuilt.comparison.tables:
        console.print(f"    {table}")
    console.print(f"  it serves now, and what served is kept: velro replay {name} --undo")


def _tell_parked(console: Console, events: int) -> None:
    if events:
        console.print(f"  {events:,} events could not be applied: velro parked list")


async def undo_with_bar(name: ReadModelName, console: Console, *, grace: timedelta) -> None:
    """Switch back to what the last rebuild replaced.

    Raises:
        NothingToUndo: nothing is kept, or of another version.
        TryLater: the log, or a rebuild, is in the way.
    """
    place = read_model_of(name)
    progress = _bars(console)
    with progress:
        bar = _bar(progress, f"switching {name} back", "")
        async with log_of(place.settings) as log:
            undone = await undo(
                place.dsn,
                log,
                place.model,
                Decoding(place.settings.subjects),
                on_progress=lambda done, total: bar(done, total, 0),
                grace=grace,
            )
            bar(undone.position, undone.position, 0)
    console.print(
        f"  {name} is switched back: it caught up {undone.caught_up:,} events to position "
        f"{undone.position:,} in {undone.took_s:.1f} s; --undo again switches forth"
    )
    _tell_parked(console, undone.parked)


async def only_with_bar(
    names: Sequence[ReadModelName],
    console: Console,
    *,
    generation_ids: Sequence[str],
    user_id: str | None,
) -> None:
    """Make the rows of single generations anew, in the tables that serve.

    Raises:
        UnknownGeneration: the log knows nothing of one, or nothing of the user.
        PoisonedEvent: an event cannot be applied.
        Refused, TryLater: with a sentence.
    """
    unknown: set[str] = set()
    for name in names:
        place = read_model_of(name)
        async with log_of(place.settings) as log:
            done = await _only(place, log, _bars(console), generation_ids, user_id)
        console.print(
            f"  {name}: {done.generations:,} generations made anew at position "
            f"{done.position:,}, {done.rows:,} of them have rows"
        )
        unknown.update(done.unknown)
    if unknown:
        raise UnknownGeneration(
            f"the log has no event of {', '.join(sorted(unknown))}; rows of it, if any, are gone"
        )


async def _only(
    place: ReadModelPlace,
    log: ArchivedLog,
    progress: Progress,
    generation_ids: Sequence[str],
    user_id: str | None,
) -> RebuiltOnly:
    decoding = Decoding(place.settings.subjects)
    with progress:
        wanted = set(generation_ids)
        if user_id is not None:
            looking = _bar(progress, f"looking for generations of {user_id}", "")
            wanted.update(
                await generations_of(
                    place.dsn,
                    log,
                    place.model,
                    decoding,
                    user_id,
                    on_progress=lambda done, total: looking(done, total, 0),
                )
            )
            if not wanted:
                raise UnknownGeneration(f"neither log nor tables have a generation of {user_id}")
        bar = _bar(progress, f"replaying {len(wanted):,} of {place.model.name}", "")
        return await rebuild_only(
            place.dsn,
            log,
            place.model,
            decoding,
            sorted(wanted),
            by_reading=log.from_archive,
            on_progress=lambda done, total: bar(done, total, 0),
        )


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("  {task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
    )


def _bar(progress: Progress, what: str, unit: str) -> Callable[[int, int, float], None]:
    task = progress.add_task(what, total=1, rate="")

    def show(done: int, total: int, rate: float) -> None:
        shown = f", {rate:,.0f} {unit}" if unit else ""
        progress.update(task, completed=done, total=total, rate=shown)

    return show
