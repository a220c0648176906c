"""The projecting transaction: rows and checkpoint change together, or nothing does."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from shared.contracts.envelope import Recorded
from shared.projection.errors import PoisonedEvent, Superseded
from shared.projection.folding import NOT_STORABLE, fold, save_one
from shared.projection.kept import Marks, marks_of
from shared.projection.stuck import ending_when_stuck
from shared.projection.tables import QUERIES, Checkpoint, channel_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncpg import Connection, Record

    from shared.projection.batch import Batch, Unreadable
    from shared.projection.port import ReadModel


Row = TypeVar("Row")

_LONGEST_REASON: Final = 2000
_FOLLOWS: Final = "an earlier event of this generation is parked"


class Poison(Enum):
    """What an event that cannot be applied does."""

    PARK = auto()
    """It is put aside with all later ones of its generation; the others flow."""

    STOP = auto()
    """`PoisonedEvent` is raised."""


@dataclass(frozen=True, slots=True)
class Parked:
    """An event that was put aside."""

    position: int
    subject: str
    generation_id: str
    event_type: str | None
    reason: str


def storable(reason: str) -> str:
    """A reason as the table takes it: no NUL, which may be just what is wrong with the event."""
    return reason.replace("\0", "\\0")[:_LONGEST_REASON]


def follows(position: int) -> str:
    """Why an event is parked that nothing is wrong with."""
    return f"follows position {position}, which is parked"


class Applier(Generic[Row]):
    """Applies batches to one schema over one connection.

    Attributes:
        parked: the generations whose events are put aside.
        parked_count: how many events are.
    """

    def __init__(
        self,
        connection: Connection[Record],
        schema: str,
        model: ReadModel[Row],
        *,
        poison: Poison,
        fold_limit_s: float | None = None,
        on_parked: Callable[[Parked], None] = lambda _: None,
    ) -> None:
        """Write over this connection, whose search path names the schema.

        Args:
            connection: used by nobody else while a batch is applied.
            schema: the name under which others are told of new positions.
            model: whose tables they are.
            poison: what an event that cannot be applied does.
            fold_limit_s: the process ends when folding one batch takes longer; None: it waits.
            on_parked: hears of each event that was put aside.
        """
        self._connection = connection
        self._channel = channel_of(schema)
        self._model = model
        self._poison = poison
        self._fold_limit_s = fold_limit_s
        self._on_parked = on_parked
        self._marks = Marks()
        self.parked: set[str] = set()
        self.parked_count = 0

    async def begin(self) -> None:
        """Learn which generations are parked, and what is known of single events."""
        rows = await QUERIES.rows(self._connection, "parked_generations")
        self.parked = {row["generation_id"] for row in rows}
        self.parked_count = await QUERIES.value(self._connection, "parked_count")
        self._marks = await marks_of(self._connection, self._model.name)

    async def apply(self, batch: Batch, checkpoint: Checkpoint) -> Checkpoint:
        """Write what the batch changes, and the checkpoint behind it.

        Raises:
            Superseded: somebody else moved the checkpoint; nothing was written.
            PoisonedEvent: with `Poison.STOP`; nothing was written.
        """
        try:
            parked = await self._transaction(batch, checkpoint, one_by_one=False)
        except NOT_STORABLE:
            # One row of many cannot be written: find out which.
            parked = await self._transaction(batch, checkpoint, one_by_one=True)
        self.parked.update(event.generation_id for event in parked)
        self.parked_count += len(parked)
        for event in parked:
            self._on_parked(event)
        return Checkpoint(checkpoint.incarnation, batch.last, batch.fingerprint)

    async def _transaction(
        self, batch: Batch, checkpoint: Checkpoint, *, one_by_one: bool
    ) -> list[Parked]:
        connection, model = self._connection, self._model
        async with connection.transaction():
            moved = await QUERIES.value(
                connection,
                "move",
                incarnation=checkpoint.incarnation,
                from_position=checkpoint.position,
                to_position=batch.last,
                event_fingerprint=batch.fingerprint,
                channel=self._channel,
            )
            if moved is None:
                raise Superseded(
                    f"the checkpoint of {model.name} is no longer at {checkpoint.position}: "
                    "another projector or a rebuild moved it"
                )
            rows = await model.load(connection, list(batch.histories))
            if one_by_one:
                changed: dict[str, Row] = {}
                parked = await self._save_one_by_one(batch, rows)
            else:
                changed, parked = self._fold(batch, rows)
            if changed:
                await model.save(connection, changed)
            if parked:
                await self._park(parked)
        return parked

    def _fold(self, batch: Batch, rows: dict[str, Row]) -> tuple[dict[str, Row], list[Parked]]:
        """The rows that the batch changes, and the events that cannot be applied."""
        changed: dict[str, Row] = {}
        parked: list[Parked] = []
        with ending_when_stuck(self._fold_limit_s):
            for generation_id, history in batch.histories.items():
                before = rows.get(generation_id)
                if generation_id in self.parked:
                    parked += self._parked(batch, generation_id, history, _FOLLOWS)
                    continue
                after, applied, reason = fold(self._model, before, history, self._marks)
                if after is not None and after is not before:
                    changed[generation_id] = after
                if applied < len(history):
                    parked += self._parked(batch, generation_id, history[applied:], reason)
        return changed, parked

    async def _save_one_by_one(self, batch: Batch, rows: dict[str, Row]) -> list[Parked]:
        """The same, each row saved by itself, to find those that cannot be."""
        parked: list[Parked] = []
        for generation_id, history in batch.histories.items():
            applied, reason = 0, _FOLLOWS
            if generation_id not in self.parked:
                before = rows.get(generation_id)
                applied, reason = await save_one(
                    self._connection, self._model, generation_id, before, history, marks=self._marks
                )
            if applied < len(history):
                parked += self._parked(batch, generation_id, history[applied:], reason)
        return parked

    def _parked(
        self,
        batch: Batch,
        generation_id: str,
        events: Sequence[Recorded | Unreadable],
        reason: str,
    ) -> list[Parked]:
        subjects = {record.position: record.subject for record in batch.records}
        first = events[0].position
        parked = [
            Parked(
                position=event.position,
                subject=subjects[event.position],
                generation_id=generation_id,
                event_type=(
                    event.envelope.type if isinstance(event, Recorded) else event.event_type
                ),
                reason=storable(reason) if event.position == first else follows(first),
            )
            for event in events
        ]
        if self._poison is Poison.STOP:
            worst = parked[0]
            raise PoisonedEvent(
                f"read model {self._model.name}: the event at position {worst.position} "
                f"({worst.subject}, {worst.event_type or 'of no readable type'}) cannot be "
                f"applied: {worst.reason}. Nothing was changed. Mend the code and begin again. Or "
                "put it aside, with all later ones of its generation, as the service does: "
                f"velro replay {self._model.name} --park. Or leave the event out, where it is "
                "parked already (velro parked list): "
                f'velro parked discard {generation_id} --why "..."'
            )
        return parked

    async def _park(self, parked: Sequence[Parked]) -> None:
        await QUERIES.run(
            self._connection,
            "park",
            position=[event.position for event in parked],
            subject=[event.subject for event in parked],
            generation_id=[event.generation_id for event in parked],
            event_type=[event.event_type for event in parked],
            reason=[event.reason for event in parked],
        )
