"""Trimming by hand: first what may leave the stream, then letting it go."""

from __future__ import annotations

from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from shared.errors import Refused
from shared.printing import printer
from storage_svc.adapters.terminal import print_json
from storage_svc.composition import trimmer_of

if TYPE_CHECKING:
    from rich.console import Console

    from shared.archive.settings import ArchiveSettings
    from shared.object_store.settings import S3Settings
    from storage_svc.application.trimming import Cut
    from storage_svc.settings import StorageSettings


class NoAge(Refused):
    """Nothing says for how long a generation must be settled."""


async def trim(
    settings: StorageSettings,
    bucket: S3Settings,
    archive: ArchiveSettings,
    *,
    days: float | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Let the events of generations leave that are settled for so many days.

    Raises:
        NoAge: neither the call nor the settings say how many.
        VelroError: it could not go on; what was let go is in the archive.
    """
    if days is None:
        days = archive.trim_after_days
    if days is None:
        raise NoAge(
            "say for how long a generation must be settled: with --days, or in "
            "VELRO_ARCHIVE_TRIM_AFTER_DAYS"
        )
    console = printer(quiet=as_json)
    events = generations = last = 0
    stays: str | None = None
    async with trimmer_of(settings, bucket, archive, after=timedelta(days=days)) as trimmer:
        head = await trimmer.archive.head()
        first, archived = await trimmer.log.first_position(), head.last if head else 0
        console.print(
            f"  stream {settings.stream} begins at position {first:,}, its archive ends at "
            f"{archived:,}; what is settled for {days:g} days "
            f"{'could leave' if dry_run else 'leaves'}, up to the first generation that is not",
            highlight=False,
        )
        with _bar(console) as progress:
            task = progress.add_task("looking", total=archived, completed=first - 1)
            trimmer.looked = lambda position: progress.update(task, completed=position)
            async with aclosing(trimmer.cuts()) as cuts:
                async for cut in cuts:
                    stays = cut.stays
                    if not cut.events:
                        continue
                    progress.console.print(_planned(cut), highlight=False)
                    if not dry_run:
                        await trimmer.carry_out(cut)
                        progress.console.print(_done(cut), highlight=False)
                    events += cut.events
                    generations += cut.generations
                    last = cut.last
    if as_json:
        told = {
            "dry_run": dry_run,
            "events": events,
            "generations": generations,
            "last_position": last or None,
            "stays_because": stays,
        }
        print_json(printer(), told)
        return
    told = "may leave" if dry_run else "left, and are in the archive"
    console.print(
        f"{events:,} events of {generations:,} generations {told}; what follows stays: {stays}",
        soft_wrap=True,
        highlight=False,
    )


def _planned(cut: Cut) -> str:
    return (
        f"  positions {cut.first:,} to {cut.last:,}: {cut.events:,} events of "
        f"{cut.generations:,} generations may leave"
    )


def _done(cut: Cut) -> str:
    return (
        "    they left: each is the archived one by its hash, and is found there by its "
        f"generation; the stream begins at {cut.last + 1:,}"
    )


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("  {task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
