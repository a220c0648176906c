"""The generation read model as the projection runner wants it: load, evolve, save."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter

from generation_svc.read_model.fold import evolve
from generation_svc.read_model.rows import Failure, GenerationRow, Migration, OutputRow, Status
from shared.postgres.queries import Queries

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncpg import Connection, Record

    from shared.contracts.envelope import Recorded

NAME: Final = "generation"

HERE: Final = Path(__file__).parent
_OUTPUTS: Final[TypeAdapter[tuple[OutputRow, ...]]] = TypeAdapter(tuple[OutputRow, ...])
_FAILURE: Final[TypeAdapter[Failure]] = TypeAdapter(Failure)
_STATUS: Final = {status.value: status for status in Status}


class GenerationModel:
    """One row a generation, its outputs inside; a `ReadModel[GenerationRow]`."""

    def __init__(self) -> None:
        self._queries = Queries(HERE / "project.sql")

    @property
    def name(self) -> str:
        """Names the checkpoint, the lock, the notifications and the schema."""
        return NAME

    @property
    def schema_sql(self) -> str:
        """Creates the table in an empty schema."""
        return (HERE / "schema.sql").read_text(encoding="utf-8")

    @property
    def written_by_others(self) -> frozenset[str]:
        """Nobody else writes to these tables."""
        return frozenset()

    async def load(
        self, connection: Connection[Record], generation_ids: Sequence[str]
    ) -> dict[str, GenerationRow]:
        """The rows of these generations; absent where there is none."""
        records = await self._queries.rows(connection, "load", ids=generation_ids)
        return {record["id"]: _row(record) for record in records}

    def evolve(self, row: GenerationRow | None, recorded: Recorded) -> GenerationRow | None:
        """The row after one event."""
        return evolve(row, recorded)

    def columns(self, rows: Mapping[str, GenerationRow]) -> dict[str, list[Any]]:
        """What `save` writes, by column, a value for each row: also for comparing with the table.

        Of a row that was loaded it does not know what was asked.
        """
        written = list(rows.values())
        return {
            "id": list(rows),
            "position": [row.position for row in written],
            "user_id": [row.user_id for row in written],
            "provider": [row.provider for row in written],
            "model": [row.model for row in written],
            "input": [row.asked.input if row.asked else None for row in written],
            "metadata": [row.asked.metadata if row.asked else None for row in written],
            "status": [row.status.value for row in written],
            "attempts": [row.attempts for row in written],
            "request_id": [row.request_id for row in written],
            "failure": [
                # Without what has its default: rows from before there was one are the same rows.
                _FAILURE.dump_json(row.failure, exclude_defaults=True).decode()
                if row.failure
                else None
                for row in written
            ],
            "created_at": [row.created_at for row in written],
            "updated_at": [row.updated_at for row in written],
            "finished_at": [row.finished_at for row in written],
            "outputs": [dump_outputs(row.outputs) for row in written],
            "storage_state": [row.storage_state.value for row in written],
            "storage_failed_at": [row.storage_failed_at for row in written],
            "earliest_link_death": [row.earliest_link_death for row in written],
            "migration_completed_at": [
                row.migration.completed_at if row.migration else None for row in written
            ],
            "total_migrated_size": [
                row.migration.total_size_bytes if row.migration else None for row in written
            ],
            "migration_file_count": [
                row.migration.file_count if row.migration else None for row in written
            ],
        }

    async def save(self, connection: Connection[Record], rows: Mapping[str, GenerationRow]) -> None:
        """Write the rows as they are now; a repeat changes nothing."""
        await self._queries.run(connection, "save", **self.columns(rows))

    async def forget(self, connection: Connection[Record], generation_ids: Sequence[str]) -> None:
        """Take the rows of these generations away, for them to be made anew."""
        await self._queries.run(connection, "forget", generation_ids=list(generation_ids))

    async def of_user(self, connection: Connection[Record], user_id: str) -> list[str]:
        """The generations of which the tables say that they are this user's."""
        rows = await self._queries.rows(connection, "of_user", user_id=user_id)
        return [row["generation_id"] for row in rows]


def dump_outputs(outputs: tuple[OutputRow, ...]) -> str:
    """Outputs as the column holds them."""
    if not outputs:
        return "[]"
    return _OUTPUTS.dump_json(outputs, exclude_none=True).decode()


def load_outputs(column: str) -> tuple[OutputRow, ...]:
    """Outputs as they were dumped."""
    return () if column == "[]" else _OUTPUTS.validate_json(column)


def load_failure(column: str | None) -> Failure | None:
    """A failure as it was dumped."""
    return None if column is None else _FAILURE.validate_json(column)


def _row(record: Record) -> GenerationRow:
    migrated_at = record["migration_completed_at"]
    return GenerationRow(
        position=record["position"],
        user_id=record["user_id"],
        provider=record["provider"],
        model=record["model"],
        asked=None,
        status=_STATUS[record["status"]],
        attempts=record["attempts"],
        request_id=record["request_id"],
        failure=load_failure(record["failure"]),
        created_at=record["created_at"],
        updated_at=record["updated_at"],
        finished_at=record["finished_at"],
        outputs=load_outputs(record["outputs"]),
        storage_failed_at=record["storage_failed_at"],
        migration=(
            Migration(migrated_at, record["total_migrated_size"], record["migration_file_count"])
            if migrated_at
            else None
        ),
    )
