"""What a read model is to the runner that projects the log into it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncpg import Connection, Record

    from shared.contracts.envelope import Recorded

Row = TypeVar("Row")


class ReadModel(Protocol[Row]):
    """Tables that hold nothing but what the log says, one `Row` a generation.

    The tables live in a schema of their own, which the connection's search path names, so the
    SQL never does: a second version of the tables is a second schema.
    """

    @property
    def name(self) -> str:
        """Names the checkpoint, the advisory lock, the notifications and the schema."""
        ...

    @property
    def schema_sql(self) -> str:
        """Creates the tables in an empty schema."""
        ...

    async def load(
        self, connection: Connection[Record], generation_ids: Sequence[str]
    ) -> dict[str, Row]:
        """The rows of these generations; absent where there is none."""
        ...

    def evolve(self, row: Row | None, recorded: Recorded) -> Row | None:
        """The row after one event. Pure. None: the event leaves this read model without a row."""
        ...

    async def save(self, connection: Connection[Record], rows: Mapping[str, Row]) -> None:
        """Write the rows as they are now, by generation id; a repeat changes nothing."""
        ...
