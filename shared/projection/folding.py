"""One generation's events, applied one after the other for as long as that goes well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import asyncpg

from shared.contracts.envelope import Recorded
from shared.errors import in_words
from shared.projection.batch import Unreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpg import Connection, Record

    from shared.projection.kept import Marks
    from shared.projection.port import ReadModel

Row = TypeVar("Row")
Happened = Recorded | Unreadable

NOT_STORABLE: Final = (
    asyncpg.exceptions.DataError,
    asyncpg.exceptions.IntegrityConstraintViolationError,
    asyncpg.exceptions.ProgramLimitExceededError,
    ValueError,  # asyncpg's own DataError is one; its name is hidden by the server's
)
"""What Postgres, or asyncpg before it, says of a value that no table takes, such as a text with a
NUL in it: trying again changes nothing."""


def fold(
    model: ReadModel[Row], row: Row | None, history: Sequence[Happened], marks: Marks
) -> tuple[Row | None, int, str]:
    """The row after as many events as can be applied, how many that is, and why not more."""
    evolve = model.evolve
    discarded, deadly = marks.discarded, marks.deadly
    for applied, event in enumerate(history):
        if event.position in discarded:
            continue
        if event.position in deadly:
            return row, applied, deadly[event.position]
        if isinstance(event, Unreadable):
            return row, applied, event.reason
        try:
            row = evolve(row, event)
        except Exception as error:  # noqa: BLE001 - whatever a fold raises, its event is poison
            return row, applied, in_words(error)
    return row, len(history), ""


async def save_one(
    connection: Connection[Record],
    model: ReadModel[Row],
    generation_id: str,
    before: Row | None,
    history: Sequence[Happened],
    *,
    marks: Marks,
) -> tuple[int, str]:
    """Save as much of one generation as can be: how many events that is, and why not more."""

    async def refused(after: Row | None) -> str | None:
        if after is None or after is before:
            return None
        try:
            async with connection.transaction():
                await model.save(connection, {generation_id: after})
        except NOT_STORABLE as error:
            return in_words(error)
        return None

    after, foldable, reason = fold(model, before, history, marks)
    if await refused(after) is None:
        return foldable, reason
    # Some event made a row that cannot be written: the first one is where it stops.
    for applied in range(foldable):
        after, _, _ = fold(model, before, history[: applied + 1], marks)
        if because := await refused(after):
            return applied, because
    raise AssertionError("the whole history was refused, so its last event was")
