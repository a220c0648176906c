"""What a rebuild will do, before it does it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.filesize import decimal

from shared.projection.batch import Decoding
from shared.projection.rebuild_plan import Plan, plan
from velro.read_models import ReadModelName, read_model_of
from velro.replaying import log_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from shared.projection.applying import Poison

_NO_SIDE_EFFECTS = (
    "none. A fold is given a row and an event and returns a row: no provider, bucket or "
    "log is within its reach (`make lint` holds read models to that). The log is read by a "
    "consumer of its own without acknowledgements. All is written to schema {name}_rebuild, "
    "which nobody reads before the switch"
)
_OF_THE_SWITCH = {
    ReadModelName.GENERATION: "",
    ReadModelName.STORAGE: (
        ". The switch forgets who works on which output: one that is being copied just then may "
        "be copied once more, to the same object"
    ),
}


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and where its events are read from.

    Attributes:
        from_archive: what is archived is read from there, the rest from the stream.
    """

    plan: Plan
    from_archive: bool

    @property
    def side_effects(self) -> str:
        """Why there are none, in a sentence."""
        name = ReadModelName(self.plan.read_model)
        return _NO_SIDE_EFFECTS.format(name=name) + _OF_THE_SWITCH[name]


async def plans(
    names: Sequence[ReadModelName], *, processes: int, from_archive: bool, poison: Poison
) -> list[Planned]:
    """Measure a sample of each, one after the other.

    Raises:
        Refused, TryLater: with a sentence.
    """
    made: list[Planned] = []
    for name in names:
        place = read_model_of(name)
        async with log_of(place.settings, from_archive=from_archive) as log:
            decoding = Decoding(place.settings.subjects)
            found = await plan(
                place.dsn, log, place.model, decoding, poison=poison, processes=processes
            )
            made.append(Planned(found, log.from_archive))
    return made


def show_briefly(made: Sequence[Planned], console: Console) -> None:
    """One line a read model, before it is rebuilt."""
    for each in (planned.plan for planned in made):
        console.print(
            f"  {each.read_model}: {each.events:,} events to read, "
            f"about {decimal(sum(table.bytes for table in each.tables))} to write, "
            f"about {each.predicted_s:,.0f} s"
        )
        _show_dropped(each, console)


def show_whole(made: Sequence[Planned], console: Console) -> None:
    """Everything that is known before."""
    for planned in made:
        each = planned.plan
        begun = f" (an interrupted rebuild came to {each.begins_at:,})" if each.begins_at else ""
        source = "the archive, and what is not in it yet from " if planned.from_archive else ""
        console.print(each.read_model, style="bold")
        console.print(
            f"  reads         {each.events:,} events, positions {each.begins_at + 1:,} to "
            f"{each.ends_at:,}{begun}, of about {each.aggregates:,} generations, from {source}"
            "the stream"
        )
        _show_dropped(each, console)
        for table in each.tables:
            console.print(
                f"  writes        {each.read_model}_rebuild.{table.name}: about {table.rows:,} "
                f"rows, {decimal(table.bytes)} with indexes"
            )
        if each.other_log is not None:
            console.print(
                f"  compares with nothing: what serves is of another log. {each.other_log}. "
                "Nothing is built unless --accept-differences is said"
            )
        elif each.serving is None:
            console.print("  compares with nothing: there are no tables yet")
        else:
            how = "counts and content" if each.serving.same_version else "counts, where it can"
            console.print(
                f"  compares with the tables that serve, now at position "
                f"{each.serving.position:,}: {how}; keeps them after the switch"
            )
        console.print(f"  side effects  {planned.side_effects}")
        console.print(
            f"  takes         about {each.predicted_s:,.1f} s: {each.sampled:,} events were "
            f"projected at {each.events_per_s:,.0f} events/s{_by(each)} to find out; comparing "
            "comes on top"
        )


def _show_dropped(made: Plan, console: Console) -> None:
    if made.dropped is not None:
        console.print(f"  begins anew   an interrupted rebuild is dropped: {made.dropped}")


def _by(made: Plan) -> str:
    if made.processes == 1:
        return ""
    return f" by {made.processes} processes, which were there after {made.starting_s:.1f} s,"


def show_json(made: Sequence[Planned], console: Console) -> None:
    """The same for a script."""
    console.print_json(
        json.dumps(
            [
                {
                    **dataclasses.asdict(each.plan),
                    "events": each.plan.events,
                    "predicted_s": round(each.plan.predicted_s, 3),
                    "from_archive": each.from_archive,
                    "side_effects": [],
                    "why_no_side_effects": each.side_effects,
                }
                for each in made
            ]
        )
    )
