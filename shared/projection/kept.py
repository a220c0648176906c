"""What is kept of a read model over its rebuilds: attempts at events, and decisions on them.

It stands in a schema of its own, `velro_projection`, because a rebuild replaces the read model's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from shared.postgres.queries import Queries

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncpg import Connection, Record

KEPT: Final = Queries(Path(__file__).parent / "kept.sql")


@dataclass(frozen=True, slots=True)
class Marks:
    """What is known of single events before they are tried.

    Attributes:
        discarded: positions of events that a person decided to leave out.
        deadly: why an event must not be tried, by its position.
    """

    discarded: frozenset[int] = frozenset()
    deadly: Mapping[int, str] = field(default_factory=dict[int, str])


async def ensure_kept(connection: Connection[Record]) -> None:
    """Make the tables where there are none. Inside the caller's transaction."""
    if await KEPT.value(connection, "kept_exists"):
        return
    await KEPT.row(connection, "lock_kept_making")
    if not await KEPT.value(connection, "kept_exists"):
        await connection.execute(KEPT.sql("create_kept"))


async def marks_of(connection: Connection[Record], read_model: str) -> Marks:
    """What is known of events of one read model."""
    discarded = await KEPT.rows(connection, "discarded_positions", read_model=read_model)
    deadly = await KEPT.rows(connection, "deadly", read_model=read_model)
    return Marks(
        discarded=frozenset(row["position"] for row in discarded),
        deadly={row["position"]: deadly_reason(row["attempts"] - 1) for row in deadly},
    )


def deadly_reason(deaths: int) -> str:
    """Why an event that nobody survived is not tried any more."""
    return f"{deaths} processes in turn died while they applied it"
