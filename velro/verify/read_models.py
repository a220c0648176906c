"""The read models as verifying sees them: whole rows at one moment, beside folds of the log."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from generation_svc.read_model.model import NAME as GENERATION
from generation_svc.read_model.model import GenerationModel
from shared.postgres.connecting import POSTGRES_AWAY, away, close, connect
from shared.postgres.queries import Queries
from shared.projection.errors import SchemaOutdated
from shared.projection.kept import marks_of
from shared.projection.tables import QUERIES as TABLES
from shared.projection.tables import read_checkpoint, schema_fingerprint
from storage_svc.read_model.model import NAME as STORAGE
from storage_svc.read_model.model import BacklogModel
from velro.verify.errors import NotReadable
from velro.verify.known import Met

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

    from asyncpg import Connection, Record

    from shared.projection.kept import Marks
    from shared.projection.port import ReadModel
    from shared.projection.tables import Checkpoint

QUERIES: Final = Queries(Path(__file__).parent / "read_models.sql")

NAMES: Final = (GENERATION, STORAGE)
"""The read models, in the order in which folds and snapshots list them."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One read model with what its rows are compared by.

    Attributes:
        columns: what the model would write of folded rows, by column.
        id_column: the one of these that names the generation.
    """

    model: ReadModel[Any]
    columns: Callable[[Mapping[str, Any]], Mapping[str, list[Any]]]
    id_column: str

    @property
    def name(self) -> str:
        """The read model's."""
        return self.model.name


def compared() -> tuple[Compared, Compared]:
    """Both read models, in the order of `NAMES`."""
    generation, storage = GenerationModel(), BacklogModel()
    return (
        Compared(generation, generation.columns, "id"),
        Compared(storage, storage.columns, "generation_id"),
    )


@dataclass(frozen=True, slots=True)
class Parked:
    """Where the events of one generation are put aside from."""

    position: int
    events: int
    reason: str


@dataclass(frozen=True, slots=True)
class Moment:
    """A read model at one moment, to be looked at over any number of connections.

    Attributes:
        snapshot: Postgres' own name of the moment, while the connection that took it lives.
        position: how far the log is in these rows.
        parked: by generation.
        marks: what the read model knows of single events.
    """

    dsn: str
    snapshot: str
    position: int
    parked: Mapping[str, Parked]
    marks: Marks


class Snapshot:
    """Rows of one read model at one moment, over one connection."""

    def __init__(self, connection: Connection[Record], model: Compared) -> None:
        self._connection = connection
        self._model = model

    @property
    def read_model(self) -> str:
        """Its name."""
        return self._model.name

    async def rows(self, ids: Sequence[str]) -> dict[str, list[Record]]:
        """Whole rows of these generations; absent where there is none."""
        records = await QUERIES.rows(self._connection, f"{self._model.name}_rows", ids=ids)
        found: dict[str, list[Record]] = {}
        id_column = self._model.id_column
        for record in records:
            found.setdefault(record[id_column], []).append(record)
        return found

    async def loaded(self, ids: Sequence[str]) -> dict[str, Any]:
        """The same as the model itself loads them."""
        return await self._model.model.load(self._connection, ids)

    async def all_rows(self) -> Met:
        """All rows of the table, as they are met."""
        row = await QUERIES.row(self._connection, f"{self._model.name}_all")
        assert row is not None
        return Met(row["rows"], int(row["hashes"]))

    async def ids(self) -> AsyncGenerator[list[str], None]:
        """Every generation that has a row, some thousands at a time; perhaps more than once."""
        cursor = await self._connection.cursor(QUERIES.sql(f"{self._model.name}_ids"))
        while records := await cursor.fetch(5000):
            yield [record["id"] for record in records]


@asynccontextmanager
async def taken(dsn: str, model: Compared) -> AsyncGenerator[tuple[Moment, Snapshot, Checkpoint]]:
    """A read model as it is now, whatever changes meanwhile.

    Raises:
        NotReadable: no Postgres.
        SchemaOutdated: the tables are those of another version.
    """
    connection = await _connected(dsn, model)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await connection.execute("set local idle_in_transaction_session_timeout = 0")
            await _recognise(connection, model)
            checkpoint = await read_checkpoint(connection)
            # Looked at, so that they cannot be swapped for others from here on.
            await QUERIES.rows(connection, f"{model.name}_rows", ids=[])
            parked = {
                row["generation_id"]: Parked(row["position"], row["events"], row["reason"])
                for row in await QUERIES.rows(connection, "parked")
            }
            moment = Moment(
                dsn=dsn,
                snapshot=await connection.fetchval("select pg_export_snapshot()"),
                position=checkpoint.position,
                parked=parked,
                marks=await marks_of(connection, model.name),
            )
            yield moment, Snapshot(connection, model), checkpoint
    except POSTGRES_AWAY as error:
        raise NotReadable(f"read model {model.name}: {away(error)}") from error
    finally:
        await close(connection)


@asynccontextmanager
async def joined(moment: Moment, model: Compared) -> AsyncGenerator[Snapshot]:
    """The same moment over a connection of one's own.

    Raises:
        NotReadable: no Postgres.
    """
    connection = await _connected(moment.dsn, model)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await connection.execute("set local idle_in_transaction_session_timeout = 0")
            await connection.execute(f"set transaction snapshot '{moment.snapshot}'")
            yield Snapshot(connection, model)
    except POSTGRES_AWAY as error:
        raise NotReadable(f"read model {model.name}: {away(error)}") from error
    finally:
        await close(connection)


async def _recognise(connection: Connection[Record], model: Compared) -> None:
    if not await TABLES.value(connection, "exists_in", schema_name=model.name):
        raise NotReadable(
            f"read model {model.name} has no tables: build them with velro replay {model.name}"
        )
    found = await TABLES.row(connection, "checkpoint")
    if found is None or found["schema_fingerprint"] != schema_fingerprint(model.model):
        raise SchemaOutdated(
            f"the tables of read model {model.name} belong to another version; "
            f"rebuild them from the log with: velro replay {model.name}"
        )


async def _connected(dsn: str, model: Compared) -> Connection[Record]:
    try:
        return await connect(dsn, schema=model.name, application_name="velro verify")
    except POSTGRES_AWAY as error:
        raise NotReadable(f"read model {model.name}: {away(error)}") from error
