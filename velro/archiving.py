"""`velro archive`: look at the log's archive in the bucket. Nothing here writes."""

from __future__ import annotations

import json
import sys
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from shared.archive.errors import ArchiveDamaged, ArchiveForked
from shared.archive.opening import archived_log
from shared.archive.opening import opened_archive as archive_of
from shared.archive.restoring import compare
from shared.errors import Refused, TryLater
from shared.event_log.jetstream import JetStreamLog
from shared.messaging.access import NatsAccess
from shared.messaging.connection import connected
from shared.printing import printer, table
from shared.program import run, settings_of
from shared.settings import LogSettings
from velro.archive_damage import Examined, advice, advice_without_log, examined
from velro.options import AsJson, use_environment

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from nats.aio.client import Client
    from rich.console import Console
    from rich.table import Table

    from shared.archive.archive import Archive
    from shared.archive.archived_log import ArchivedLog
    from shared.archive.manifest import Entry

EXIT_DAMAGED: Final = 1

app = typer.Typer(no_args_is_help=True, help="The log's archive in the bucket: read only.")


class NotArchived(Refused):
    """The archive has no such events."""


@dataclass(frozen=True, slots=True)
class OpenedLog:
    """The log, and the connection that it is read over.

    Attributes:
        log: what is in the stream.
        whole: the same, and before it what was trimmed.
    """

    settings: LogSettings
    connection: Client
    log: JetStreamLog
    whole: ArchivedLog


@asynccontextmanager
async def opened_archive() -> AsyncGenerator[Archive]:
    """The archive that the environment names.

    Raises:
        KeysUnreadable: the settings name files of keys, which hold none.
    """
    async with archive_of(settings_of(LogSettings).stream) as archive:
        yield archive


@asynccontextmanager
async def opened_log(name: str) -> AsyncGenerator[OpenedLog]:
    """The log that the environment names, over a connection of its own.

    Raises:
        BrokerUnavailable: no NATS.
    """
    settings = settings_of(LogSettings)
    async with connected(NatsAccess.of(settings), name=name) as connection:
        log = JetStreamLog(connection, settings.subjects, stream=settings.stream)
        async with archived_log(connection, settings) as whole:
            yield OpenedLog(settings, connection, log, whole)


@app.command("ls")
def ls(*, as_json: AsJson = False) -> None:
    """List the segments, and how far behind the log the archive is.

    Ends with 1 where the manifest does not lead to all of them.
    """
    use_environment()
    raise typer.Exit(run(_listed(as_json=as_json)))


@app.command("verify")
def verify(
    *,
    against_log: Annotated[
        bool, typer.Option("--against-log", help="Also compare each event with the log's.")
    ] = False,
) -> None:
    """Read every segment, check every hash and link; name all that is damaged, and what to do.

    Ends with 1 where something is not as it was written.
    """
    use_environment()
    raise typer.Exit(run(_verified(against_log=against_log)))


@app.command("cat")
def cat(
    first: Annotated[int, typer.Option("--from", min=1, help="The first position.")] = 1,
    until: Annotated[int | None, typer.Option(min=1, help="The last position.")] = None,
) -> None:
    """Print archived events, one line of JSON each: position, subject, headers and event."""
    use_environment()
    run(_printed(after=first - 1, until=until))


async def _listed(*, as_json: bool) -> int:
    entries: list[Entry] = []
    wrong: str | None = None
    async with opened_archive() as archive:
        try:
            async for entry in archive.entries():
                entries.append(entry)  # noqa: PERF401 - what came before it is wrong is kept
        except ArchiveDamaged as error:
            wrong = f"{error}: see velro archive verify"
    try:
        async with opened_log("velro archive") as opened:
            end: int | None = await opened.log.last_position()
    except TryLater:
        end = None
    if as_json:
        told = {
            "log_end": end,
            "segments": [entry.model_dump(mode="json") for entry in entries],
            "wrong": wrong,
        }
        typer.echo(json.dumps(told))
        return EXIT_DAMAGED if wrong else 0
    console = printer()
    console.print(_table(entries))
    archived = entries[-1].last if entries else 0
    console.print(f"{len(entries)} segments, up to position {archived:,}, {_behind(archived, end)}")
    if wrong is not None:
        console.print(_wrong(wrong), soft_wrap=True)
        return EXIT_DAMAGED
    return 0


def _behind(archived: int, end: int | None) -> str:
    if end is None:
        return "the log does not answer"
    if end < archived:
        return f"but the log ends at {end:,}: it is another one, or has lost events (velro doctor)"
    return f"{end - archived:,} behind the log"


def _table(entries: list[Entry]) -> Table:
    shown = table("first", "last", "events", "packed", "unpacked", "stored until", "sha256")
    for entry in entries:
        shown.add_row(
            f"{entry.first:,}",
            f"{entry.last:,}",
            f"{entry.count:,}",
            decimal(entry.packed_bytes),
            decimal(entry.content_bytes),
            f"{entry.last_stored_at:%Y-%m-%d %H:%M}",
            entry.content_sha256[:8],
        )
    return shown


async def _verified(*, against_log: bool) -> int:
    console = printer()
    async with opened_archive() as archive:
        with _bar(console) as progress:
            task = progress.add_task("segments", total=None)
            found = await examined(
                archive, lambda done, of: progress.update(task, completed=done, total=of)
            )
        try:
            if found.damage:
                await _tell_damage(found, archive, console)
                return EXIT_DAMAGED
            console.print(f"  every segment is as it was written: {found.events:,} events")
            if found.unnamed:
                _tell_unnamed(found.unnamed, console)
            if against_log:
                await _compared(archive, console)
        except (ArchiveDamaged, ArchiveForked) as error:
            console.print(_wrong(f"{error}"), soft_wrap=True)
            return EXIT_DAMAGED
    return 0


def _tell_unnamed(keys: Sequence[str], console: Console) -> None:
    listed = "".join(f"\n    {key}" for key in keys)
    console.print(
        f"  {len(keys)} segment(s) are named by no entry: what an archiver left that ended between "
        f"the two, or is at work. They are in nobody's way; old ones may be deleted:{listed}",
        soft_wrap=True,
        highlight=False,
    )


async def _compared(archive: Archive, console: Console) -> None:
    same = 0
    async with opened_log("velro archive") as opened:
        with _bar(console) as progress:
            task = progress.add_task("events compared with the log's", total=None)
            async with aclosing(compare(opened.log, archive)) as compared:
                async for so_far in compared:
                    same = so_far.position
                    progress.update(task, completed=same, total=so_far.until)
    console.print(f"  the log has the same events up to position {same:,}")


async def _tell_damage(found: Examined, archive: Archive, console: Console) -> None:
    for sentence in found.damage:
        console.print(_wrong(sentence), soft_wrap=True)
    console.print(f"  {found.events:,} events are as they were written", highlight=False)
    try:
        async with opened_log("velro archive") as opened:
            what_to_do = await advice(found, archive, opened.log)
    except TryLater:
        what_to_do = advice_without_log(found, archive)
    console.print(f"  {what_to_do}", soft_wrap=True, highlight=False)


def _wrong(sentence: str) -> Text:
    return Text.assemble("  ", ("✗", "bold red"), f" {sentence}")


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("  {task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )


async def _printed(*, after: int, until: int | None) -> None:
    if until is not None and until <= after:
        raise NotArchived(f"--from {after + 1:,} comes after --until {until:,}")
    async with opened_archive() as archive:
        if after >= (end := await archive.end()):
            raise NotArchived(f"the archive ends at position {end:,}: see velro archive ls")
    async with (
        opened_archive() as archive,
        aclosing(archive.read_whole(after=after, until=until)) as source,
    ):
        async for records in source:
            for record in records:
                line = {
                    "position": record.position,
                    "subject": record.subject,
                    "stored_at_ns": record.stored_at_ns,
                    "headers": record.headers.decode(errors="replace"),
                    "event": record.data.decode(errors="replace"),
                }
                sys.stdout.write(json.dumps(line) + "\n")
