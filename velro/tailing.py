"""`velro export` and `velro tail`: look at the log, event by event."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from generation_svc.read_model.looking_back import Moment, NoMoment, moment
from shared.contracts.codec import Codec, Undecodable
from shared.printing import printer
from shared.program import on_signals, run, write_nowhere
from velro.archiving import opened_log
from velro.options import AsJson, use_environment

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from shared.contracts.envelope import Envelope
    from shared.event_log.port import EventLog, RawRecord

    Told = Callable[[RawRecord], str | None]

_LAST: Final = 20
_LOOKED_AT_FIRST: Final = 1_000

Types = Annotated[
    list[str] | None,
    typer.Option("--type", help="Only these: a type, or a part of it as `media_lost`."),
]
Generations = Annotated[list[str] | None, typer.Option("--generation", help="Only of these.")]
From = Annotated[str | None, typer.Option("--from", help="A position (1234), or a time.")]
Until = Annotated[str | None, typer.Option("--until", help="A position (1234), or a time.")]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events are looked at; those that cannot be read count as of no type."""

    types: tuple[str, ...]
    generations: frozenset[str]
    begin: Moment | None
    end: Moment | None

    def takes(self, record: RawRecord, envelope: Envelope | None) -> bool:
        """Whether an event is one of them; by position it is already."""
        if self.generations and record.subject.rpartition(".")[2] not in self.generations:
            return False
        if envelope is None:
            return not self.types
        if self.types and not any(part in envelope.type for part in self.types):
            return False
        after = not isinstance(self.begin, datetime) or envelope.time >= self.begin
        return after and (not isinstance(self.end, datetime) or envelope.time <= self.end)


def export(
    *,
    types: Types = None,
    generations: Generations = None,
    begin: From = None,
    until: Until = None,
) -> None:
    """Write events as lines of JSON: position, subject and the whole event."""
    use_environment()
    wanted = _wanted(types, generations, begin, until)
    _quietly(_told(wanted, follow=False, last=None, show=_as_line))


def tail(
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new ones.")] = False,
    types: Types = None,
    generations: Generations = None,
    begin: From = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Show the newest events, or those from a moment on."""
    if follow and until is not None:
        raise typer.BadParameter("--follow has no end: leave --until out")
    use_environment()
    wanted = _wanted(types, generations, begin, until)
    last = _LAST if begin is None else None
    _quietly(_told(wanted, follow=follow, last=last, show=_as_line if as_json else _as_text))


def _wanted(
    types: list[str] | None,
    generations: list[str] | None,
    begin: str | None,
    until: str | None,
) -> Wanted:
    return Wanted(
        tuple(types or ()),
        frozenset(generations or ()),
        moment(begin) if begin is not None else None,
        moment(until) if until is not None else None,
    )


def _quietly(telling: Any) -> None:  # noqa: ANN401 - a coroutine, whose type parameters say nothing here
    """Run it; whoever reads may stop reading, as `head` does."""
    try:
        run(telling)
        sys.stdout.flush()
    except BrokenPipeError:
        write_nowhere()


async def _told(
    wanted: Wanted,
    *,
    follow: bool,
    last: int | None,
    show: Callable[[RawRecord, Envelope | None, str], str],
) -> None:
    codec = Codec()

    def told(record: RawRecord) -> str | None:
        try:
            envelope, why = codec.decode(record.data), ""
        except Undecodable as error:
            envelope, why = None, str(error)
        return show(record, envelope, why) if wanted.takes(record, envelope) else None

    async with opened_log("velro tail") as opened:
        end = await opened.log.last_position()
        _see_that_they_were(wanted, end)
        if last is None:
            lines = _all(opened.whole, wanted, told, until=end)
        else:
            lines = _newest(opened.whole, wanted, told, until=end, most=last)
        any_told = False
        async with aclosing(lines):
            async for line in lines:
                any_told = True
                _write(line)
        if follow:
            await _followed(opened.whole, end, told)
        elif not any_told and show is _as_text:
            typer.echo(f"no event up to position {end:,} is one of these", err=True)


def _see_that_they_were(wanted: Wanted, end: int) -> None:
    """The position after the log's end is that of the next event, which a script may ask for."""
    match wanted.begin, wanted.end:
        case int(begin), _ if begin > end + 1:
            raise NoMoment(f"position {begin:,} lies in the future: the log ends at {end:,}")
        case int(begin), int(until) if begin > until:
            raise NoMoment(f"--from {begin:,} comes after --until {until:,}")
        case datetime() as begin, datetime() as until if begin > until:
            raise NoMoment(f"--from {begin.isoformat()} comes after --until {until.isoformat()}")
        case _:
            pass


async def _all(log: EventLog, wanted: Wanted, told: Told, *, until: int) -> AsyncGenerator[str]:
    with _bar() as bar:
        task = bar.add_task("reading the log", total=until)
        async with aclosing(_records(log, wanted, until=until)) as records:
            async for record in records:
                bar.update(task, completed=record.position)
                if (line := told(record)) is not None:
                    yield line


async def _newest(
    log: EventLog, wanted: Wanted, told: Told, *, until: int, most: int
) -> AsyncGenerator[str]:
    """The newest ones, looked for from the end backwards: the whole log may be long."""
    end = min(wanted.end, until) if isinstance(wanted.end, int) else until
    found: list[str] = []
    piece = _LOOKED_AT_FIRST
    while end > 0 and len(found) < most:
        these = replace(wanted, begin=max(end - piece + 1, 1))
        async with aclosing(_records(log, these, until=end)) as records:
            found = [line async for each in records if (line := told(each)) is not None] + found
        end, piece = end - piece, piece * 4
    for line in found[-most:]:
        yield line


def _bar() -> Progress:
    """Shown where lines go to a file and a person watches."""
    console = printer(stderr=True)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=sys.stdout.isatty() or not console.is_terminal,
    )


async def _records(log: EventLog, wanted: Wanted, *, until: int) -> AsyncGenerator[RawRecord, None]:
    begin = wanted.begin if isinstance(wanted.begin, int) else 1
    end = min(wanted.end, until) if isinstance(wanted.end, int) else until
    if max(begin, 1) > end:
        return
    async with aclosing(log.read(after=max(begin, 1) - 1, until=end)) as batches:
        async for batch in batches:
            for record in batch:
                yield record


async def _followed(log: EventLog, after: int, told: Told) -> None:
    sys.stdout.flush()

    async def follow() -> None:
        async with aclosing(log.read(after=after)) as batches:
            async for batch in batches:
                for record in batch:
                    if (line := told(record)) is not None:
                        _write(line)
                sys.stdout.flush()

    def stop() -> None:
        following.cancel()

    following = asyncio.create_task(follow(), name="follow")
    on_signals(stop)
    await asyncio.wait((following,))
    if not following.cancelled():
        following.result()


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")


def _as_line(record: RawRecord, envelope: Envelope | None, why: str) -> str:
    told: dict[str, object] = {"position": record.position, "subject": record.subject}
    if envelope is None:
        told |= {"undecodable": why, "bytes": record.data.decode(errors="backslashreplace")}
    else:
        told["event"] = json.loads(record.data)
    return json.dumps(told)


def _as_text(record: RawRecord, envelope: Envelope | None, why: str) -> str:
    if envelope is None:
        return f"{record.position:>10,}  {record.subject}  cannot be read: {why}"
    body = json.loads(record.data)["data"]
    said = ", ".join(f"{name}={json.dumps(value)}" for name, value in body.items())
    head = f"{record.position:>10,}  {envelope.time:%Y-%m-%d %H:%M:%S}  {envelope.type}"
    if not sys.stdout.isatty():
        return f"{head}  {envelope.subject}  {said}"
    # An id and a type do not fit into one line of most terminals, and are not to be cut.
    cut = f"{'':>10}  {envelope.subject}  {said}"[: Console().width]
    return f"{head}\n{cut}"
