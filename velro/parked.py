"""Events that could not be applied, on the command line: seen, tried again, or given up."""

from __future__ import annotations

import dataclasses
import json
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import asyncpg
import psutil
import typer

from shared.archive.opening import archived_log
from shared.messaging.access import NatsAccess
from shared.messaging.connection import connected
from shared.postgres.connecting import POSTGRES_AWAY, away, close, connect
from shared.printing import printer
from shared.program import run
from shared.projection.batch import Decoding
from shared.projection.parked import NotParked, ParkedEvent, ParkingPlace, Retried
from shared.projection.tables import read_checkpoint
from velro.options import AsJson, use_environment
from velro.read_models import ReadModelAway, ReadModelName, read_model_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from shared.event_log.port import RawRecord
    from shared.projection.parked import Discarded

EXIT_STILL_PARKED: Final = 1
_AT_ONCE: Final = 500

app = typer.Typer(
    no_args_is_help=True, help="Events that could not be applied: see, retry, discard."
)

Which = Annotated[
    ReadModelName | None, typer.Option("--read-model", help="Only this one; else all there are.")
]


@app.command("list")
def list_command(
    *,
    read_model: Which = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Of each read model.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show each generation that stands still, from which event on, and what was discarded."""
    use_environment()
    run(_list(_chosen(read_model), limit=limit, as_json=as_json))


@app.command("show")
def show_command(generation_id: str, *, read_model: Which = None) -> None:
    """Show the parked events of one generation whole, as the log holds them, in JSON."""
    use_environment()
    run(_show(_chosen(read_model), generation_id))


@app.command("retry")
def retry_command(
    generation_id: Annotated[str | None, typer.Argument()] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every generation that is parked.")] = False,
    read_model: Which = None,
) -> None:
    """Apply parked events, in order, beside the running services.

    Ends with 1 where something still cannot be applied; that stays parked.
    """
    if every == (generation_id is not None):
        raise typer.BadParameter("give either a generation or --all")
    use_environment()
    raise typer.Exit(run(_retry(_chosen(read_model), generation_id)))


@app.command("discard")
def discard_command(
    generation_id: str,
    *,
    why: Annotated[str | None, typer.Option(help="Kept with the decision.")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take the decision back.")] = False,
    read_model: Which = None,
) -> None:
    """Leave the event that cannot be applied out of the read model for good; apply what follows.

    The log keeps it. A rebuild leaves it out too, until the decision is taken back with --undo
    and the read model is rebuilt with `velro replay`. Ends with 1 where a later event cannot be
    applied either; that one is parked now.
    """
    if undo == bool(why):
        raise typer.BadParameter('give either --why "a reason" or --undo')
    use_environment()
    chosen = _chosen(read_model)
    if undo:
        run(_undo(chosen, generation_id))
    else:
        raise typer.Exit(run(_discard(chosen, generation_id, why or "")))


def _chosen(read_model: ReadModelName | None) -> Sequence[ReadModelName]:
    return tuple(ReadModelName) if read_model is None else (read_model,)


@asynccontextmanager
async def _place(name: ReadModelName) -> AsyncGenerator[ParkingPlace]:
    where = read_model_of(name)
    settings, schema = where.settings, where.model.name
    try:
        connection = await connect(where.dsn, schema=schema, application_name="velro parked")
    except POSTGRES_AWAY as error:
        raise ReadModelAway(f"{name}: {away(error)}") from error
    try:
        async with (
            connected(NatsAccess.of(settings), name="velro parked") as nats,
            archived_log(nats, settings) as log,
        ):
            await read_checkpoint(connection)
            yield ParkingPlace(connection, where.model, log, Decoding(settings.subjects))
    except POSTGRES_AWAY as error:
        raise ReadModelAway(f"{name}: {away(error)}") from error
    except asyncpg.UndefinedTableError as error:
        raise ReadModelAway(f"{name} has no tables yet: start the service that keeps it") from error
    finally:
        await close(connection)


async def _list(names: Sequence[ReadModelName], *, limit: int, as_json: bool) -> None:
    parked: dict[str, list[ParkedEvent]] = {}
    discarded: dict[str, list[Discarded]] = {}
    for name in names:
        async with _place(name) as place:
            parked[name] = await place.first_of_each(most=limit)
            discarded[name] = await place.discarded()
    console = printer()
    if as_json:
        found = {"parked": _as_data(parked), "discarded": _as_data(discarded)}
        console.print_json(json.dumps(found, default=str))
        return
    for name, events in parked.items():
        for event in events:
            waits = f"; {event.following:,} later ones wait behind it" if event.following else ""
            console.print(f"{name}  {event.generation_id}  position {event.position}", style="bold")
            console.print(
                f"  {event.event_type or 'of no readable type'}, parked since "
                f"{event.parked_at:%Y-%m-%d %H:%M:%S} UTC{waits}: {event.reason}",
                soft_wrap=True,
            )
        if len(events) == limit:
            console.print(f"of {name} no more than {limit} are shown: --limit shows more")
    if not any(parked.values()):
        console.print("Nothing is parked.")
    for name, decisions in discarded.items():
        for each in decisions:
            console.print(
                f"{name}  {each.generation_id}  position {each.position} is discarded",
                style="bold",
            )
            console.print(
                f"  {each.event_type or 'of no readable type'}, by {each.discarded_by}: {each.why}",
                soft_wrap=True,
            )


async def _show(names: Sequence[ReadModelName], generation_id: str) -> None:
    shown: list[dict[str, Any]] = []
    for name in names:
        async with _place(name) as place:
            events = await place.of(generation_id)
            records = {record.position: record for record in await place.records(events)}
            shown += [
                {
                    "read_model": name,
                    **dataclasses.asdict(event),
                    "event": _event(records.get(event.position)),
                }
                for event in events
            ]
    if not shown:
        raise _nothing_of(generation_id)
    printer().print_json(json.dumps(shown, default=str))


async def _retry(names: Sequence[ReadModelName], generation_id: str | None) -> int:
    if generation_id is not None:
        return await _settle(names, generation_id, lambda place: place.retry(generation_id))
    worst = 0
    for name in names:
        async with _place(name) as place:
            last = 0
            while events := await place.first_of_each(most=_AT_ONCE, after=last):
                last = events[-1].position
                for event in events:
                    worst = max(worst, _told(name, await place.retry(event.generation_id)))
    return worst


async def _discard(names: Sequence[ReadModelName], generation_id: str, why: str) -> int:
    by = f"{psutil.Process().username()}@{socket.gethostname()}"
    return await _settle(
        names,
        generation_id,
        lambda place: place.discard(generation_id, why=why, by=by),
        left_out=1,
    )


async def _settle(
    names: Sequence[ReadModelName],
    generation_id: str,
    settle: Callable[[ParkingPlace], Awaitable[Retried]],
    *,
    left_out: int = 0,
) -> int:
    """Where it is parked; in several read models it may be."""
    results: list[int] = []
    for name in names:
        async with _place(name) as place:
            if await place.of(generation_id):
                results.append(_told(name, await settle(place), left_out=left_out))
    if not results:
        raise _nothing_of(generation_id)
    return max(results)


async def _undo(names: Sequence[ReadModelName], generation_id: str) -> None:
    console = printer()
    any_taken_back = False
    for name in names:
        async with _place(name) as place:
            if taken_back := await place.undo_discard(generation_id):
                any_taken_back = True
                console.print(
                    f"{name}: {taken_back} decision(s) on {generation_id} taken back; "
                    f"`velro replay {name}` applies its events"
                )
    if not any_taken_back:
        raise NotParked(
            f"no event of generation {generation_id} was discarded; `velro parked list` shows "
            "what was"
        )


def _told(name: ReadModelName, result: Retried, *, left_out: int = 0) -> int:
    """Say what became of it; `left_out` of what was settled has no effect, as was decided."""
    console = printer()
    applied = f"{result.applied - left_out} event(s) of {result.generation_id} have their effect"
    console.print(f"{name}: {applied}" + (f", {left_out} is left out" if left_out else ""))
    if (still := result.still) is None:
        return 0
    console.print(
        f"{name}: position {still.position} ({still.event_type or 'of no readable type'}) still "
        f"cannot be applied, and stays parked: {still.reason}"
    )
    return EXIT_STILL_PARKED


def _nothing_of(generation_id: str) -> NotParked:
    return NotParked(
        f"nothing of generation {generation_id} is parked; `velro parked list` shows what is"
    )


def _event(record: RawRecord | None) -> object:
    if record is None:
        return None
    try:
        return json.loads(record.data)
    except ValueError:
        return {"bytes": record.data.decode(errors="backslashreplace")}


def _as_data(found: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [
        {"read_model": name, **dataclasses.asdict(event)}
        for name, events in found.items()
        for event in events
    ]
