"""`velro restore`: bring the log back from its archive, into a server that lost it."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from shared.archive.restoring import compare, restore, write_down_what_left
from shared.archive.trimmed import TrimmedIndex
from shared.errors import Refused
from shared.event_log.jetstream_api import STREAM_NOT_FOUND, ApiError, NoAnswer
from shared.event_log.jetstream_stream import StreamDeclaration, ensure_stream, stream_state
from shared.event_log.port import LogUnavailable
from shared.printing import printer
from shared.program import run
from velro.archiving import OpenedLog, opened_archive, opened_log
from velro.options import use_environment

if TYPE_CHECKING:
    from rich.console import Console

    from shared.archive.archive import Archive
    from shared.archive.manifest import Entry

_PLAN_ONLY: Final = "Say what would be done, and do nothing."


class NothingArchived(Refused):
    """There is no archive to restore from."""


class BeginningLost(Refused):
    """The stream begins later than it should, and the archive does not have what is before."""


class NothingLeft(Refused):
    """The stream's events were all taken away, and it counts on where they ended."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a restore does.

    Attributes:
        head: the archive's end.
        first: where the stream begins; later than 1 where it was trimmed.
        present: up to where the stream has events already, as the archive has them.
        through: up to where it is written down what was trimmed.
    """

    head: Entry
    first: int
    present: int
    through: int

    @property
    def missing(self) -> int:
        """How many events are brought back."""
        return max(self.head.last - self.present, 0)

    @property
    def not_written_down(self) -> range:
        """Positions that are in the archive alone, and of which the index does not know."""
        return range(min(self.through + 1, self.first), self.first)


def restore_command(
    *, dry_run: Annotated[bool, typer.Option("--dry-run", help=_PLAN_ONLY)] = False
) -> None:
    """Bring the log back from its archive: the same events, ids, headers and positions.

    Stop both services first. What the stream has already is compared with the archive, event by
    event, so an interrupted restore goes on where it was; a stream that differs is left alone.
    """
    use_environment()
    run(_restored(printer(), dry_run=dry_run))


async def _restored(console: Console, *, dry_run: bool) -> None:
    async with opened_archive() as archive, opened_log("velro restore") as opened:
        head = await archive.head()
        if head is None:
            raise NothingArchived(f"there is no archive under {archive.root}/ in the bucket")
        if dry_run and not await _is_there(opened):
            _tell(Plan(head, first=1, present=0, through=0), opened, console)
            return
        await ensure_stream(opened.connection, StreamDeclaration.of(opened.settings))
        index = TrimmedIndex(opened.connection, opened.settings.subjects, opened.settings.stream)
        first, end = await opened.log.first_position(), await opened.log.last_position()
        through = await index.through()
        _see_that_it_can_be(first, end, max(through, head.last), opened.settings.stream)
        plan = Plan(head, first, await _compared(opened, archive, console), through)
        _tell(plan, opened, console)
        if dry_run:
            return
        if plan.not_written_down:
            await _written_down(plan, opened, index, archive, console)
        if plan.missing:
            await _brought_back(plan, opened, archive, console)


async def _is_there(opened: OpenedLog) -> bool:
    stream = opened.settings.stream
    try:
        await stream_state(opened.connection, stream, timeout_s=5.0)
    except ApiError as error:
        if error.err_code == STREAM_NOT_FOUND:
            return False
        raise LogUnavailable(f"stream {stream}: {error}") from error
    except NoAnswer as error:
        raise LogUnavailable(f"stream {stream}: {error}") from error
    return True


def _see_that_it_can_be(first: int, end: int, known: int, stream: str) -> None:
    if first > known + 1:
        raise BeginningLost(
            f"stream {stream} begins at position {first:,}, and the archive ends at {known:,}: "
            "what is between them is in neither. Bring the bucket's objects back, from its "
            "versions or a backup"
        )
    if 1 < first == end + 1:
        raise NothingLeft(
            f"stream {stream} holds no event, and would go on at position {first:,}: all were "
            "taken away. Delete it (nats stream rm), and run this again: it is made anew and filled"
        )


async def _compared(opened: OpenedLog, archive: Archive, console: Console) -> int:
    """Where the stream ends; all of it is as the archive has it."""
    end = await opened.log.last_position()
    if end:
        with _bar(console) as progress:
            task = progress.add_task("comparing what is there", total=end)
            async with aclosing(compare(opened.log, archive)) as compared:
                async for so_far in compared:
                    progress.update(task, completed=so_far.position, total=so_far.until)
    return end


def _tell(plan: Plan, opened: OpenedLog, console: Console) -> None:
    head = plan.head
    console.print(
        f"  the archive holds {head.last:,} events in {head.number:,} segments, "
        f"stored until {head.last_stored_at:%Y-%m-%d %H:%M:%S} UTC"
    )
    held = max(plan.present - plan.first + 1, 0)
    trimmed = f" (those before {plan.first:,} were trimmed)" if plan.first > 1 else ""
    console.print(
        f"  stream {opened.settings.stream} holds {held:,}{trimmed}; "
        f"{plan.missing:,} are to be brought back"
        + (f", from position {plan.present + 1:,} on" if plan.missing else ": nothing to do")
    )
    if unknown := plan.not_written_down:
        console.print(
            f"  positions {unknown[0]:,} to {unknown[-1]:,} are in the archive alone, and the "
            "index of what was trimmed does not know them: they are to be written down there"
        )


async def _written_down(
    plan: Plan, opened: OpenedLog, index: TrimmedIndex, archive: Archive, console: Console
) -> None:
    unknown = plan.not_written_down
    with _bar(console) as progress:
        task = progress.add_task("writing down what left", total=unknown[-1])
        async with aclosing(
            write_down_what_left(
                index, archive, opened.settings.subjects, after=plan.through, until=unknown[-1]
            )
        ) as written:
            async for position in written:
                progress.update(task, completed=position)
    await opened.whole.see_that_it_is_whole()
    console.print(f"  {len(unknown):,} events are found in the archive again, by their generation")


async def _brought_back(plan: Plan, opened: OpenedLog, archive: Archive, console: Console) -> None:
    began = monotonic()
    with _bar(console) as progress:
        task = progress.add_task("bringing back", total=plan.head.last, completed=plan.present)
        stream = opened.settings.stream
        async with aclosing(
            restore(opened.connection, stream, archive, after=plan.present)
        ) as reached:
            async for position in reached:
                progress.update(task, completed=position)
        task = progress.add_task("comparing all of it", total=plan.head.last)
        async with aclosing(compare(opened.log, archive)) as compared:
            async for so_far in compared:
                progress.update(task, completed=so_far.position)
    console.print(
        f"  {plan.missing:,} events are back at their positions, in {monotonic() - began:.1f} s, "
        "and every one is the archived one, by its hash"
    )
    console.print(
        "  now start the services, and see with velro doctor that the read models are of this log"
    )


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("  {task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
        TimeRemainingColumn(),
        console=console,
    )
