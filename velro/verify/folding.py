"""What the log says of single generations, folded by the read models themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.contracts.envelope import Recorded
from shared.contracts.generation_events import GenerationRequested
from shared.projection.folding import fold
from velro.verify.findings import Finding, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from generation_svc.read_model.rows import GenerationRow
    from shared.event_log.port import RawRecord
    from shared.projection.folding import Happened
    from velro.verify.read_models import Compared, Moment


@dataclass(slots=True)
class Generation:
    """One generation as far as its events have been read.

    Attributes:
        rows: what they add up to, by read model, in the order of the moments.
        begun: its first event was among them; else `records` are all that were.
        stopped: the places of read models in which an event could not be used.
        seen_at: which batch had its last one.
    """

    rows: list[Any]
    begun: bool
    records: tuple[RawRecord, ...] = ()
    stopped: frozenset[int] = frozenset()
    seen_at: int = 0

    @property
    def goes_on(self) -> bool:
        """Whether more events are sure to come of it, unless something is wrong."""
        row: GenerationRow | None = self.rows[0]
        return row is not None and (not row.status.finished or row.earliest_link_death is not None)


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
                to.stopped |= {place}
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
