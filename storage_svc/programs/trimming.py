"""Trimming by hand: first what may leave the stream, then letting it go."""

from __future__ import annotations

from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console

from shared.errors import Refused
from storage_svc.adapters.terminal import print_json
from storage_svc.composition import trimmer_of

if TYPE_CHECKING:
    from shared.archive.settings import ArchiveSettings
    from shared.object_store.settings import S3Settings
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
    days = days or archive.trim_after_days
    if days is None:
        raise NoAge(
            "say for how long a generation must be settled: with --days, or in "
            "VELRO_ARCHIVE_TRIM_AFTER_DAYS"
        )
    console = Console()
    events = last = 0
    generations: set[str] = set()
    stays: str | None = None
    after = timedelta(days=days)
    async with (
        trimmer_of(settings, bucket, archive, after=after) as trimmer,
        aclosing(trimmer.cuts()) as cuts,
    ):
        async for cut in cuts:
            stays = cut.stays
            if not cut.events:
                continue
            if not dry_run:
                await trimmer.carry_out(cut)
            if not as_json:
                done = "would leave" if dry_run else "left the stream"
                console.print(f"  positions {cut.first:,} to {cut.last:,} {done}")
            events += cut.events
            last = cut.last
            generations.update(cut.departing)
    if as_json:
        told = {
            "dry_run": dry_run,
            "events": events,
            "generations": len(generations),
            "last_position": last or None,
            "stays_because": stays,
        }
        print_json(console, told)
        return
    console.print(
        f"{events:,} events of {len(generations):,} generations "
        f"{'may leave' if dry_run else 'are in the archive alone'}; what follows stays: {stays}",
        soft_wrap=True,
        highlight=False,
    )
