"""What the log says is in the bucket, and what is there: beside each other on disk."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiosql

from shared.scratch import scratch_file

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Generator, Iterable, Sequence

    from generation_svc.read_model.rows import GenerationRow

_SQL: Final[Any] = aiosql.from_path(  # pyright: ignore[reportUnknownMemberType] - it makes queries methods when it reads the file
    Path(__file__).parent / "objects.sql", "sqlite3"
)
_AT_ONCE: Final = 5000
_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Kept:
    """One object as the log says it is."""

    bucket: str
    key: str
    generation_id: str
    output_index: int
    size_bytes: int
    sha256: str
    media_type: str


@dataclass(frozen=True, slots=True)
class Listed:
    """One object as its bucket lists it; `modified_at` in seconds since 1970."""

    bucket: str
    key: str
    size_bytes: int
    modified_at: float


class KeptObjects:
    """Writes down what one part of the log says is stored."""

    def __init__(self, file: Path) -> None:
        self._connection = scratch_file(file)
        _SQL.make_kept(self._connection)
        self._waiting: list[dict[str, object]] = []

    def add(self, generation_id: str, row: GenerationRow | None) -> None:
        """The outputs of one generation."""
        for index, output in enumerate(row.outputs if row else ()):
            if (stored := output.stored) is not None:
                assert row is not None
                self._waiting.append(
                    {
                        "bucket": stored.bucket,
                        "key": stored.key,
                        "generation_id": generation_id,
                        "output_index": index,
                        "size_bytes": stored.size_bytes,
                        "sha256": stored.sha256,
                        "media_type": stored.media_type,
                        "said_at": row.updated_at.timestamp(),
                    }
                )
        if len(self._waiting) >= _AT_ONCE:
            self._write()

    def close(self) -> None:
        """Write the rest."""
        self._write()
        self._connection.commit()
        self._connection.close()

    def _write(self) -> None:
        if self._waiting:
            _SQL.keep(self._connection, self._waiting)
            self._waiting.clear()


class Beside:
    """What the log says of all buckets, and what they list. Used by one thread at a time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def take_over(self, parts: Sequence[Path]) -> None:
        """What each part of the log says."""
        for part in parts:
            self._connection.commit()
            self._connection.execute("attach database ? as part", (str(part),))
            _SQL.take_over(self._connection)
            self._connection.commit()
            self._connection.execute("detach database part")

    def add_listed(self, listed: Iterable[Listed]) -> None:
        """A page of a listing."""
        _SQL.list(
            self._connection,
            [
                {
                    "bucket": one.bucket,
                    "key": one.key,
                    "size_bytes": one.size_bytes,
                    "modified_at": one.modified_at,
                }
                for one in listed
            ],
        )

    def buckets(self) -> dict[str, int]:
        """Every bucket that the log names, and how many objects it should hold."""
        return dict(_SQL.buckets(self._connection))

    def pages(self, query: str, **parameters: object) -> Generator[list[Kept]]:
        """Objects that the log speaks of, some at a time.

        Args:
            query: missing, different, rewritten or present: see the SQL.
            parameters: what it takes.
        """
        cursor: sqlite3.Cursor
        with getattr(_SQL, f"{query}_cursor")(self._connection, **parameters) as cursor:
            while rows := cursor.fetchmany(_PAGE):
                yield [Kept(*row[:7]) for row in rows]

    def unclaimed(self) -> Generator[list[Listed]]:
        """Objects that the log as it was read does not speak of, some at a time."""
        cursor: sqlite3.Cursor
        with _SQL.unclaimed_cursor(self._connection) as cursor:
            while rows := cursor.fetchmany(_PAGE):
                yield [Listed(*row) for row in rows]


@contextmanager
def beside(file: Path) -> Generator[Beside]:
    """An empty comparison in a file of its own."""
    connection = scratch_file(file)
    try:
        _SQL.make_listed(connection)
        yield Beside(connection)
    finally:
        connection.close()
