"""The backlog as the projection runner wants it: load, evolve, save."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.postgres.queries import Queries
from storage_svc.read_model.entries import Entry, EntryState
from storage_svc.read_model.rows import Backlog, evolve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncpg import Connection, Record

    from shared.contracts.envelope import Recorded

NAME = "storage"
HERE = Path(__file__).parent

_ENTRY_COLUMNS = (
    "output_index",
    "source_url",
    "source_host",
    "dies_at",
    "turn",
    "state",
    "attempts",
    "next_attempt_at",
    "reason",
    "detail",
    "failed_at",
    "bucket",
    "object_key",
    "size_bytes",
    "sha256",
    "media_type",
    "took_s",
    "settled_at",
    "first_dies_at",
    "link",
    "asked",
    "losses",
    "as_is",
    "rejected",
)


class BacklogModel:
    """One row an output that has to be migrated; a `ReadModel[Backlog]`."""

    def __init__(self) -> None:
        self._queries = Queries(HERE / "project.sql")

    @property
    def name(self) -> str:
        """Names the checkpoint, the lock, the notifications and the schema."""
        return NAME

    @property
    def schema_sql(self) -> str:
        """Creates the backlog in an empty schema."""
        return (HERE / "schema.sql").read_text(encoding="utf-8")

    @property
    def written_by_others(self) -> frozenset[str]:
        """Workers say who works on an output, and make ready what has waited long enough.

        The turn is an order among equals, and another one where single rows were made anew.
        """
        return frozenset({"ready", "lease_owner", "lease_until", "turn"})

    async def load(
        self, connection: Connection[Record], generation_ids: Sequence[str]
    ) -> dict[str, Backlog]:
        """The backlog of these generations; absent where nothing had to be migrated."""
        rows = await self._queries.rows(connection, "load", generation_ids=list(generation_ids))
        return {
            generation_id: _backlog(list(outputs))
            for generation_id, outputs in groupby(rows, key=lambda row: str(row["generation_id"]))
        }

    def evolve(self, row: Backlog | None, recorded: Recorded) -> Backlog | None:
        """The backlog of a generation after one event."""
        return evolve(row, recorded)

    def columns(self, rows: Mapping[str, Backlog]) -> dict[str, list[Any]]:
        """What `save` writes, by column, a value for each output: also for comparing with rows."""
        written = [
            (generation_id, row, entry)
            for generation_id, row in rows.items()
            for entry in row.entries
        ]
        return {
            "generation_id": [generation_id for generation_id, _, _ in written],
            "position": [row.position for _, row, _ in written],
            "user_id": [row.user_id for _, row, _ in written],
            "provider": [row.provider for _, row, _ in written],
            **{
                column: [getattr(entry, column) for _, _, entry in written]
                for column in _ENTRY_COLUMNS
            },
        }

    async def save(self, connection: Connection[Record], rows: Mapping[str, Backlog]) -> None:
        """Write them, and end the leases of what has a new outcome."""
        await self._queries.run(connection, "save", **self.columns(rows))

    async def forget(self, connection: Connection[Record], generation_ids: Sequence[str]) -> None:
        """Take the rows of these generations away, for them to be made anew."""
        await self._queries.run(connection, "forget", generation_ids=list(generation_ids))

    async def of_user(self, connection: Connection[Record], user_id: str) -> list[str]:
        """The generations of which the tables say that they are this user's."""
        rows = await self._queries.rows(connection, "of_user", user_id=user_id)
        return [row["generation_id"] for row in rows]


def _backlog(outputs: list[Record]) -> Backlog:
    first = outputs[0]
    return Backlog(
        user_id=first["user_id"],
        provider=first["provider"],
        position=first["position"],
        entries=tuple(
            Entry(
                output_index=output["output_index"],
                source_url=output["source_url"],
                dies_at=output["dies_at"],
                turn=output["turn"],
                state=EntryState(output["state"]),
                attempts=output["attempts"],
                next_attempt_at=output["next_attempt_at"],
                reason=output["reason"],
                detail=output["detail"],
                failed_at=output["failed_at"],
                bucket=output["bucket"],
                object_key=output["object_key"],
                size_bytes=output["size_bytes"],
                sha256=output["sha256"],
                media_type=output["media_type"],
                took_s=output["took_s"],
                settled_at=output["settled_at"],
                first_dies_at=output["first_dies_at"],
                link=output["link"],
                asked=output["asked"],
                losses=output["losses"],
                as_is=output["as_is"],
                rejected=output["rejected"],
            )
            for output in outputs
        ),
    )
