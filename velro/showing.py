"""`velro show` and `velro diff`: one generation as it was, and what changed it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic_core import to_jsonable_python

from generation_svc.domain.decide import UnknownGeneration
from generation_svc.read_model.looking_back import (
    Change,
    Moment,
    NoMoment,
    changes,
    fields_of,
    folded,
    history,
    moment,
    see_that_it_was,
    until,
    view_of,
)
from shared.printing import printer, table
from shared.program import run
from velro.archiving import opened_log
from velro.options import AsJson, use_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.contracts.envelope import Recorded

_MOMENT = "A position of the log (1234), or a time (2026-05-04T10:00:00Z)."


def show(
    generation_id: str,
    *,
    at: Annotated[str | None, typer.Option(help=_MOMENT + " Without it: now.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a generation as it is or was, from the log: whatever the read models say."""
    use_environment()
    run(_shown(generation_id, at, as_json=as_json))


def diff(
    generation_id: str,
    begin: Annotated[str, typer.Argument(metavar="FROM", help=_MOMENT)],
    end: Annotated[
        str | None, typer.Argument(metavar="TO", help=_MOMENT + " Without it: now.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show which event changed which field of a generation, after FROM and up to TO."""
    use_environment()
    run(_differences(generation_id, begin, end, as_json=as_json))


async def _shown(generation_id: str, at: str | None, *, as_json: bool) -> None:
    when = None if at is None else moment(at)
    async with opened_log("velro show") as opened:
        if when is not None:
            await see_that_it_was(when, opened.whole, now=datetime.now(UTC))
        row = folded(await history(opened.whole, generation_id, at=when))
        later = await history(opened.whole, generation_id) if row is None and at else []
    if row is None:
        then = f" at {at}; it began at position {later[0].position}" if later else ""
        raise UnknownGeneration(f"the log has no generation {generation_id}{then}")
    if as_json:
        typer.echo(json.dumps(to_jsonable_python(view_of(generation_id, row))))
        return
    shown = table("", "", header=False)
    for name, value in fields_of(generation_id, row).items():
        shown.add_row(name, _text(value))
    printer().print(shown)


async def _differences(generation_id: str, begin: str, end: str | None, *, as_json: bool) -> None:
    now = datetime.now(UTC)
    first, last = moment(begin), None if end is None else moment(end)
    async with opened_log("velro diff") as opened:
        if last is None:
            last = await opened.whole.last_position()
        for each in (first, last):
            await see_that_it_was(each, opened.whole, now=now)
        # What came later is not asked about, and may be what nobody can read.
        at = last if type(first) is type(last) else None
        events = await history(opened.whole, generation_id, at=at)
    if not events:
        then = "" if at is None else f" up to {end or at}"
        raise UnknownGeneration(f"the log has no generation {generation_id}{then}")
    if _after(first, last, events):
        raise NoMoment(f"{begin} comes after {end}: name the earlier one first")
    found = changes(events, first, last)
    if as_json:
        typer.echo(json.dumps([_as_data(change) for change in found]))
        return
    console = printer()
    for change in found:
        envelope = change.event.envelope
        console.print(
            f"{change.event.position:,}  {envelope.time:%Y-%m-%d %H:%M:%S.%f}  {envelope.type}",
            style="bold",
        )
        for name, (old, new) in change.fields.items():
            console.print(f"    {name}: {_text(old)} -> {_text(new)}", soft_wrap=True)
    if not found:
        console.print("nothing happened to it between the two")


def _after(first: Moment, last: Moment, events: Sequence[Recorded]) -> bool:
    """Whether it is; a position and a time are compared by what had happened until then."""
    match first, last:
        case int(), int():
            return first > last
        case datetime(), datetime():
            return first > last
        case _:
            return len(until(events, first)) > len(until(events, last))


def _as_data(change: Change) -> dict[str, Any]:
    envelope = change.event.envelope
    return {
        "position": change.event.position,
        "time": envelope.time.isoformat(),
        "type": envelope.type,
        "fields": {name: {"from": old, "to": new} for name, (old, new) in change.fields.items()},
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
