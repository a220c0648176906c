"""Which ids an import has met, on disk: there may be more of them than memory should hold."""

from __future__ import annotations

import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from shared.scratch import scratch_file

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Generator


class RowsSeen:
    """A `Seen` in an SQLite file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.execute(
            "create table seen (id text primary key, row integer not null) without rowid"
        )

    def setdefault(self, row_id: str, row: int, /) -> int:
        """See `Seen`."""
        added = self._connection.execute(
            "insert into seen values (?, ?) on conflict do nothing", (row_id, row)
        )
        if added.rowcount:
            return row
        (before,) = self._connection.execute("select row from seen where id = ?", (row_id,))
        return int(before[0])


@contextmanager
def rows_seen() -> Generator[RowsSeen]:
    """None as yet; forgotten when the context closes."""
    with (
        tempfile.TemporaryDirectory(prefix="velro-import-") as room,
        closing(scratch_file(Path(room) / "seen.sqlite")) as connection,
    ):
        yield RowsSeen(connection)
