"""The projecting transaction: rows and checkpoint change together, or nothing does."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import asyncpg
import structlog

from shared.contracts.envelope import Recorded
from shared.projection.batch import Unreadable
from shared.projection.errors import PoisonedEvent, Superseded
from shared.projection.tables import QUERIES, Checkpoint, channel_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpg import Connection, Record

    from shared.projection.batch import Batch
    from shared.projection.port import ReadModel

_log = structlog.get_logger(__name__)

Row = TypeVar("Row")

# What Postgres, or asyncpg before it, says of a value that no table takes, such as a text with a
# NUL in it: trying again changes nothing.
_NOT_STORABLE: Final = (
    asyncpg.exceptions.DataError,
    asyncpg.exceptions.IntegrityConstraintViolationError,
    asyncpg.exceptions.ProgramLimitExceededError,
    ValueError,  # asyncpg's own DataError is one; its name is hidden by the server's
)
_LONGEST_REASON: Final = 2000


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
    ) -> None:
        self._connection = connection
        self._channel = channel_of(schema)
        self._model = model
        self._poison = poison
        self.parked: set[str] = set()
        self.parked_count = 0

    async def begin(self) -> None:
        """Learn which generations are parked."""
        rows = await QUERIES.rows(self._connection, "parked_generations")
        self.parked = {row["generation_id"] for row in rows}
        self.parked_count = await QUERIES.value(self._connection, "parked_count")

    async def apply(self, batch: Batch, checkpoint: Checkpoint) -> Checkpoint:
        """Write what the batch changes, and the checkpoint behind it.

        Raises:
            Superseded: somebody else moved the checkpoint; nothing was written.
            PoisonedEvent: with `Poison.STOP`; nothing was written.
        """
        try:
            parked = await self._transaction(batch, checkpoint, one_by_one=False)
        except _NOT_STORABLE:
            # One row of many cannot be written: find out which.
            parked = await self._transaction(batch, checkpoint, one_by_one=True)
        self.parked.update(event.generation_id for event in parked)
        self.parked_count += len(parked)
        for event in parked:
            _log.error(
                "event_parked",
                read_model=self._model.name,
                position=event.position,
                subject=event.subject,
                type=event.event_type,
                reason=event.reason,
            )
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
            parked: list[Parked] = []
            changed: dict[str, Row] = {}
            for generation_id, history in batch.histories.items():
                before = rows.get(generation_id)
                if one_by_one:
                    applied, reason = await self._save_one(generation_id, before, history)
                else:
                    after, applied, reason = self._fold(generation_id, before, history)
                    if after is not None and after is not before:
                        changed[generation_id] = after
                if applied < len(history):
                    parked += self._parked(batch, generation_id, history[applied:], reason)
            if changed:
                await model.save(connection, changed)
            if parked:
                await self._park(parked)
        return parked

    def _fold(
        self, generation_id: str, row: Row | None, history: Sequence[Recorded | Unreadable]
    ) -> tuple[Row | None, int, str]:
        """The row after as many events as can be applied, how many, and why not more."""
        if generation_id in self.parked:
            return row, 0, "an earlier event of this generation is parked"
        evolve = self._model.evolve
        for applied, event in enumerate(history):
            if isinstance(event, Unreadable):
                return row, applied, event.reason
            try:
                row = evolve(row, event)
            except Exception as error:  # noqa: BLE001 - whatever a fold raises, its event is poison
                return row, applied, f"{type(error).__name__}: {error}"
        return row, len(history), ""

    async def _save_one(
        self, generation_id: str, before: Row | None, history: Sequence[Recorded | Unreadable]
    ) -> tuple[int, str]:
        """Save as much of one generation as can be: how many events that is, and why not more."""
        after, foldable, reason = self._fold(generation_id, before, history)
        refused = await self._try_to_save(generation_id, before, after)
        if refused is None:
            return foldable, reason
        # Some event made a row that cannot be written: the first one is where it stops.
        for applied in range(foldable):
            after, _, _ = self._fold(generation_id, before, history[: applied + 1])
            if refused := await self._try_to_save(generation_id, before, after):
                return applied, refused
        raise AssertionError("the whole history was refused, so its last event was")

    async def _try_to_save(
        self, generation_id: str, before: Row | None, after: Row | None
    ) -> str | None:
        """Save one row; None, or why it cannot be written."""
        if after is None or after is before:
            return None
        try:
            async with self._connection.transaction():
                await self._model.save(self._connection, {generation_id: after})
        except _NOT_STORABLE as error:
            return f"{type(error).__name__}: {error}"
        return None

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
                # Postgres takes no NUL, and what is wrong with the event may be just that.
                reason=(
                    reason.replace("\0", "\\0")[:_LONGEST_REASON]
                    if event.position == first
                    else f"follows position {first}, which is parked"
                ),
            )
            for event in events
        ]
        if self._poison is Poison.STOP:
            worst = parked[0]
            raise PoisonedEvent(
                f"the event at position {worst.position} ({worst.subject}, "
                f"{worst.event_type or 'of no readable type'}) cannot be applied: {worst.reason}"
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
