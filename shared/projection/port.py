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
        """Creates the tables in an empty schema.

        Its text, comments included, is the version: tables made by another text are refused until
        they are rebuilt. A fold that changed under the same tables says so in a comment.
        """
        ...

    @property
    def written_by_others(self) -> frozenset[str]:
        """Columns that say nothing of the log, such as who works on a row: never compared."""
        ...

    async def load(
        self, connection: Connection[Record], generation_ids: Sequence[str]
    ) -> dict[str, Row]:
        """The rows of these generations; absent where there is none."""
        ...

    def evolve(self, row: Row | None, recorded: Recorded) -> Row | None:
        """The row after one event. Pure. None: there is no row yet; none is ever taken away.

        The same object means that nothing changed, and nothing is written. Whatever is raised
        makes the event poison.
        """
        ...

    async def save(self, connection: Connection[Record], rows: Mapping[str, Row]) -> None:
        """Write the rows that changed, by generation id; a repeat changes nothing.

        A row that the tables refuse (a check, a value out of range) is poison: the event that made
        it is parked. Anything else that is raised stops the projector.
        """
        ...

    async def forget(self, connection: Connection[Record], generation_ids: Sequence[str]) -> None:
        """Take the rows of these generations away, for them to be made anew."""
        ...

    async def of_user(self, connection: Connection[Record], user_id: str) -> list[str]:
        """The generations of which the tables say that they are this user's."""
        ...
