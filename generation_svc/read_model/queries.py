"""What readers ask the generation read model."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from generation_svc.read_model.model import load_failure, load_outputs
from generation_svc.read_model.rows import Status, StorageState
from generation_svc.read_model.views import GenerationView, NotStored, Page, Stats
from shared.errors import Refused
from shared.postgres.queries import Queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpg import Pool, Record

MAX_PAGE: Final = 200
"""The most generations that one page holds."""

QUERIES: Final = Queries(Path(__file__).parent / "queries.sql")


class BadCursor(Refused):
    """The cursor is none that a page was answered with."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last generation of a page. Readers get it as a text without meaning."""

    created_at: datetime
    generation_id: str

    def __str__(self) -> str:
        plain = f"{self.created_at.isoformat()} {self.generation_id}"
        return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a cursor.

        Raises:
            BadCursor: it is none.
        """
        try:
            plain = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
            at, _, generation_id = plain.partition(" ")
            created_at = datetime.fromisoformat(at)
            # A moment that is before all time in UTC is none that Postgres could be asked for.
            created_at = created_at.astimezone(UTC) if created_at.tzinfo else created_at
        except (ValueError, OverflowError, binascii.Error) as error:
            raise BadCursor("this cursor is none that a page was answered with") from error
        if not generation_id or created_at.tzinfo is None or "\0" in generation_id:
            raise BadCursor("this cursor is none that a page was answered with")
        return cls(created_at, generation_id)


@dataclass(frozen=True, slots=True)
class GenerationQueries:
    """The reading side, over a pool whose search path names the read model's schema."""

    pool: Pool[Record]

    async def get(self, generation_id: str) -> GenerationView | None:
        """One generation; None where the read model has none of this id."""
        async with self.pool.acquire() as connection:
            record = await QUERIES.row(connection, "get", id=generation_id)
        return None if record is None else _view(record)

    async def list_page(
        self,
        *,
        user_id: str | None = None,
        status: Status | None = None,
        storage_state: StorageState | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page:
        """The newest generations that are like this, or those after a page's `next_cursor`.

        Pages never repeat or leave out a generation, whatever is requested meanwhile. A `limit`
        over `MAX_PAGE` is answered with that many.

        Raises:
            BadCursor: the cursor is none.
        """
        before = Cursor.parse(cursor) if cursor is not None else None
        limit = max(1, min(limit, MAX_PAGE))
        async with self.pool.acquire() as connection:
            records = await QUERIES.rows(
                connection,
                "list_page",
                user_id=user_id,
                status=status and status.value,
                storage_state=storage_state and storage_state.value,
                before_at=before and before.created_at,
                before_id=before and before.generation_id,
                max_rows=limit + 1,  # one more shows whether there is a next page
            )
        views = tuple(_view(record) for record in records[:limit])
        more = len(records) > limit
        last = views[-1] if more else None
        return Page(views, str(Cursor(last.created_at, last.id)) if last else None)

    async def positions(self, generation_ids: Sequence[str]) -> dict[str, int]:
        """By which event each of these last changed; without those that are not there."""
        async with self.pool.acquire() as connection:
            records = await QUERIES.rows(connection, "positions", ids=generation_ids)
        return {record["id"]: record["position"] for record in records}

    async def stats(self, since: datetime, *, now: datetime) -> Stats:
        """What became of the generations asked for since a moment."""
        async with (
            self.pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            # What this transaction sees begins with its first query. Without the lock before it, a
            # rebuild could switch tables in between, and its last rows would be too new to be seen.
            await QUERIES.run(connection, "hold_tables")
            counted = await QUERIES.row(connection, "count_since", since=since)
            not_stored = await QUERIES.row(connection, "count_not_stored", now=now)
        assert counted is not None  # an aggregate answers with one row
        assert not_stored is not None
        return Stats(since=since, **dict(counted), not_stored=NotStored(**dict(not_stored)))


def _view(record: Record) -> GenerationView:
    columns: dict[str, Any] = dict(record)
    columns["input"] = _json(record["input"])
    columns["metadata"] = _json(record["metadata"])
    columns["status"] = Status(record["status"])
    columns["failure"] = load_failure(record["failure"])
    columns["outputs"] = load_outputs(record["outputs"])
    columns["storage_state"] = StorageState(record["storage_state"])
    return GenerationView(**columns)


def _json(column: str | None) -> dict[str, Any] | None:
    return None if column is None else json.loads(column)
