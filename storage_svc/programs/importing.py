"""Bringing another application's rows into the log."""

from __future__ import annotations

import json
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from shared.errors import VelroError
from shared.printing import printer
from shared.program import on_signals
from storage_svc.adapters.import_sources import rows_of_file, rows_of_postgres
from storage_svc.adapters.rows_seen import rows_seen
from storage_svc.adapters.terminal import print_json
from storage_svc.adapters.terminal_import import print_import_plan, print_imported
from storage_svc.application.importing import Importer
from storage_svc.composition import log_of, now

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from rich.console import Console

    from shared.settings import LogSettings
    from storage_svc.adapters.import_sources import Source
    from storage_svc.application.import_rows import Found, Rejected
    from storage_svc.application.importing import Imported, Wishes

EXIT_REJECTED: Final = 3
EXIT_INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True)
class Given:
    """What to import: a file, or a query on a database."""

    path: Path | None
    dsn: str | None
    query: str | None

    def reads(self, path: Path) -> bool:
        """Whether it is that file."""
        return self.path is not None and self.path.resolve() == path.resolve()


class RejectsNotKept(VelroError):
    """Nobody would learn what was left out: nothing more is imported."""


@dataclass(slots=True)
class Rejects:
    """Rows that are not imported, one line of JSON each; no file where there are none."""

    path: Path
    count: int = 0

    def add(self, rejected: Rejected) -> None:
        """Write one down."""
        line = {"row": rejected.number, "reason": rejected.reason, "values": rejected.values}
        try:
            with self.path.open("a" if self.count else "w", encoding="utf-8") as file:
                file.write(json.dumps(line, default=str) + "\n")
        except OSError as error:
            raise RejectsNotKept(f"{self.path} cannot be written: {error.strerror}") from error
        self.count += 1


async def import_rows(
    settings: LogSettings,
    given: Given,
    wishes: Wishes,
    *,
    rejects: Path,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Say what would be done, then do it; the exit code.

    Raises:
        SourceUnreadable, SourceAway: the rows cannot be read.
        RejectsNotKept: rows that were left out cannot be written down.
        TryLater: the log does not answer; a repeat goes on where this ended.
    """
    if given.reads(rejects):
        raise RejectsNotKept(f"{rejects} is what is imported: name another file with --rejects")
    console = printer()
    watched = printer(stderr=True) if as_json else console
    importer = Importer(wishes, now=now())
    async with _source(given) as rows:
        with watched.status("reading every row"), rows_seen() as seen:
            async with aclosing(rows()) as found:
                plan = await importer.plan(found, seen)
        if not as_json:
            print_import_plan(console, plan, now=now())
        if dry_run:
            if as_json:
                print_json(console, {"plan": asdict(plan)})
            return EXIT_REJECTED if plan.rejected else 0
        refused = Rejects(rejects)
        done, interrupted = await _published(
            settings, importer, rows, refused, total=plan.rows, console=watched
        )
    if as_json:
        print_json(console, {"plan": asdict(plan), "done": asdict(done)})
    else:
        print_imported(console, done, rejects=rejects, interrupted=interrupted)
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_REJECTED if done.rejected else 0


async def _published(
    settings: LogSettings,
    importer: Importer,
    rows: Source,
    rejects: Rejects,
    *,
    total: int,
    console: Console,
) -> tuple[Imported, bool]:
    interrupted = False

    def stop() -> None:
        nonlocal interrupted
        interrupted = True

    async def until_interrupted() -> AsyncGenerator[Found, None]:
        async with aclosing(rows()) as found:
            async for row in found:
                if interrupted:
                    return
                yield row

    on_signals(stop)
    progress = Progress(
        TextColumn("  importing"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} rows"),
        TimeRemainingColumn(),
        console=console,
    )
    async with log_of(settings) as log:
        with progress, rows_seen() as seen:
            task = progress.add_task("", total=total)
            async with (
                aclosing(until_interrupted()) as source,
                aclosing(importer.publish(source, seen, log, rejects.add)) as published,
            ):
                done = await anext(published)
                async for done in published:
                    progress.update(task, completed=done.rows)
            progress.update(task, completed=done.rows)
    return done, interrupted


@asynccontextmanager
async def _source(given: Given) -> AsyncGenerator[Source]:
    if given.path is not None:
        async with rows_of_file(given.path) as rows:
            yield rows
    else:
        assert given.dsn is not None, "one of the two was given"
        assert given.query is not None, "it goes with the database"
        async with rows_of_postgres(given.dsn, given.query) as rows:
            yield rows
