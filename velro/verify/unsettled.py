"""What one stretch of the log leaves to be settled, on disk: it may be everything there is."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import aiosql

from shared.event_log.port import RawRecord
from shared.scratch import scratch_file

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Generator, Sequence

    from velro.verify.folding import Generation

_SQL: Final[Any] = aiosql.from_path(  # pyright: ignore[reportUnknownMemberType] - it makes queries methods when it reads the file
    Path(__file__).parent / "unsettled.sql", "sqlite3"
)
_PAGE: Final = 2000


class Unsettled:
    """Generations that have to be looked at together with other stretches."""

    def __init__(self, file: Path) -> None:
        """Open what is in the file, or begin it."""
        there = file.exists()
        self._connection = scratch_file(file)
        if not there:
            _SQL.make(self._connection)

    def add_begun(self, generations: dict[str, Generation]) -> None:
        """Generations that began in this stretch, as far as they came."""
        _SQL.add_begun(
            self._connection,
            [{"id": one, "state": pickle.dumps(each)} for one, each in generations.items()],
        )

    def add_tail(self, generation_id: str, records: Sequence[RawRecord]) -> None:
        """Events of a generation that was not known when they came."""
        _SQL.add_tail(
            self._connection,
            [
                {
                    "id": generation_id,
                    "position": record.position,
                    "subject": record.subject,
                    "data": record.data,
                }
                for record in records
            ],
        )

    def begun(self) -> Generator[dict[str, Generation]]:
        """All that began here, some at a time."""
        cursor: sqlite3.Cursor
        with _SQL.all_begun_cursor(self._connection) as cursor:
            while rows := cursor.fetchmany(_PAGE):
                # Written by our own process.
                yield {one: cast("Generation", pickle.loads(state)) for one, state in rows}  # noqa: S301

    def which_begun(self, ids: Sequence[str]) -> set[str]:
        """Which of these began here."""
        return {one for (one,) in _SQL.which_begun(self._connection, ids=json.dumps(ids))}

    def tails(self) -> Generator[list[str]]:
        """All generations of which there are only later events, some at a time."""
        cursor: sqlite3.Cursor
        with _SQL.all_tails_cursor(self._connection) as cursor:
            while rows := cursor.fetchmany(_PAGE):
                yield [one for (one,) in rows]

    def tails_of(self, ids: Sequence[str]) -> list[RawRecord]:
        """Later events of these generations, in the log's order."""
        return [
            RawRecord(position, subject, data)
            for position, subject, data in _SQL.tails_of(self._connection, ids=json.dumps(ids))
        ]

    def close(self) -> None:
        """Write what is not written yet."""
        self._connection.commit()
        self._connection.close()
