"""What the log says of single generations, folded by the read models themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shared.contracts.envelope import Recorded
from shared.contracts.events import GenerationRequested
from shared.projection.folding import fold
from velro.verify.findings import Finding, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.projection.folding import Happened
    from velro.verify.read_models import Compared, Moment


@dataclass(slots=True)
class Generation:
    """One generation as far as its events have been read.

    Attributes:
        rows: what they add up to, by read model, in the order of the moments.
        begun: its first event was among them; else `events` holds all that were.
        seen_at: which batch had its last one.
    """

    rows: list[Any]
    begun: bool
    events: list[Happened] = field(default_factory=list["Happened"])
    stopped: set[int] = field(default_factory=set[int])
    seen_at: int = 0


class Folding:
    """Folds events into generations, for each read model as far as it was at its moment.

    Attributes:
        findings: events that cannot be used though no read model has put them aside.
    """

    def __init__(self, models: Sequence[Compared], moments: Sequence[Moment]) -> None:
        self._models = models
        self._moments = moments
        self.findings: dict[int, Finding] = {}

    def begin(self, history: Sequence[Happened]) -> Generation:
        """A generation before these events, which are the first ones to be seen of it."""
        first = history[0]
        begun = isinstance(first, Recorded) and isinstance(first.envelope.data, GenerationRequested)
        return Generation([None] * len(self._models), begun)

    def add(self, generation_id: str, to: Generation, history: Sequence[Happened]) -> None:
        """Fold events into a generation."""
        if not to.begun:
            to.events += history
        for place, moment in enumerate(self._moments):
            if place in to.stopped:
                continue
            parked = moment.parked.get(generation_id)
            end = moment.position if parked is None else parked.position - 1
            events = (
                history
                if history[-1].position <= end
                else [event for event in history if event.position <= end]
            )
            row, applied, why = fold(
                self._models[place].model, to.rows[place], events, moment.marks
            )
            to.rows[place] = row
            if applied < len(events):
                to.stopped.add(place)
                position = events[applied].position
                self.findings[position] = Finding(
                    Kind.EVENT_UNUSABLE,
                    f"the event at position {position} cannot be used: {why}",
                    generation_id=generation_id,
                    position=position,
                )

    def tail(self, generation_id: str, rows: Sequence[Any], events: Sequence[Happened]) -> bool:
        """Whether these events change nothing of rows that may be known to be right before."""
        after = Generation(list(rows), begun=True)
        self.add(generation_id, after, events)
        return not after.stopped and after.rows == list(rows)
