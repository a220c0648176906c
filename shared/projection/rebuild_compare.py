"""The tables that serve beside those that were rebuilt, at one position of the log."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from shared.projection.rebuild_schemas import REBUILD, Schemas
from shared.projection.tables import QUERIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncpg import Connection, Record

    from shared.projection.port import ReadModel

_EXAMPLES: Final = 5
# What the projection itself keeps beside a model's tables says where it is, not what the log says.
NOT_OF_THE_MODEL: Final = frozenset(
    re.findall(
        r"create table (\w+)",
        QUERIES.sql("create_own") + REBUILD.sql("create_rebuild") + REBUILD.sql("create_replaced"),
    )
)

_Columns = dict[str, list[tuple[str, str, bool]]]


@dataclass(frozen=True, slots=True)
class ComparedTable:
    """One table, twice.

    Attributes:
        serving: its rows where it serves; None where it is not there.
        rebuilt: its rows as they were rebuilt; None where it is not there any more.
        differing: how many rows are only in one of them or not the same in both; None where the
            columns are others, so that only rows can be counted.
        examples: keys of some of these.
    """

    name: str
    serving: int | None
    rebuilt: int | None
    differing: int | None
    examples: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether nothing tells them apart that can be compared."""
        return self.serving == self.rebuilt and not self.differing

    def __str__(self) -> str:
        if self.serving is None or self.rebuilt is None:
            return f"{self.name}: only in the {'new' if self.serving is None else 'old'} tables"
        counts = f"{self.name}: {self.serving:,} rows serve, {self.rebuilt:,} were rebuilt"
        if self.differing is None:
            return f"{counts}; the columns are others, so no content was compared"
        if not self.differing:
            return f"{counts}, with the same content"
        return f"{counts}, {self.differing:,} differ, such as {', '.join(self.examples)}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """All tables of a read model, both sides at `position`."""

    position: int
    same_version: bool
    tables: tuple[ComparedTable, ...]

    @property
    def same(self) -> bool:
        """Whether every table is."""
        return all(table.same for table in self.tables)


async def compare(
    connection: Connection[Record], schemas: Schemas, model: ReadModel[Any]
) -> tuple[ComparedTable, ...]:
    """Count and hash every table of both schemas, as this connection's transaction sees them.

    The hash of a table is the sum of its rows' hashes, so that no order matters. Columns that
    others than the projection write are left out.
    """
    # What a value looks like as text must not depend on who asks.
    await connection.execute("set local timezone = 'UTC'; set local extra_float_digits = 1")
    old = await _columns(connection, schemas.serving, model)
    new = await _columns(connection, schemas.rebuild, model)
    return tuple(
        [
            await _compared(connection, schemas, name, old.get(name), new.get(name))
            for name in sorted({*old, *new})
        ]
    )


async def _columns(connection: Connection[Record], schema: str, model: ReadModel[Any]) -> _Columns:
    found: _Columns = {}
    for row in await REBUILD.rows(connection, "columns", schema_name=schema):
        table, name = row["table_name"], row["name"]
        if table not in NOT_OF_THE_MODEL and name not in model.written_by_others:
            found.setdefault(table, []).append((name, row["type"], row["in_key"]))
    return found


async def _compared(
    connection: Connection[Record],
    schemas: Schemas,
    name: str,
    old: list[tuple[str, str, bool]] | None,
    new: list[tuple[str, str, bool]] | None,
) -> ComparedTable:
    old_table, new_table = f'"{schemas.serving}"."{name}"', f'"{schemas.rebuild}"."{name}"'
    if old != new or old is None:
        counts: Mapping[str, int | None] = {
            table: await connection.fetchval(f"select count(*) from {table}")  # noqa: S608 - our own names
            if there
            else None
            for table, there in ((old_table, old), (new_table, new))
        }
        return ComparedTable(name, counts[old_table], counts[new_table], None)
    columns = ", ".join(f'"{column}"' for column, _, _ in old)
    # One column alone would be a value in brackets, not a row.
    content = f"row({columns}, 0)::text"
    digests = [
        await connection.fetchrow(
            "select count(*) as rows,"  # noqa: S608 - our own names
            f" coalesce(sum(hashtextextended({content}, 0)::numeric), 0) as hash from {table}"
        )
        for table in (old_table, new_table)
    ]
    serving, rebuilt = digests
    assert serving is not None  # an aggregate answers with one row
    assert rebuilt is not None
    if tuple(serving) == tuple(rebuilt):
        return ComparedTable(name, serving["rows"], rebuilt["rows"], 0)
    keys = ", ".join(f'"{column}"' for column, _, in_key in old if in_key) or columns
    differing = await connection.fetch(
        f"""
        select coalesce(old.key, new.key) as key, count(*) over () as total
        from (select ({keys})::text as key, {content} as content from {old_table}) as old
        full join (select ({keys})::text as key, {content} as content from {new_table}) as new
            on old.key = new.key
        where old.content is distinct from new.content
        order by key limit {_EXAMPLES}
        """  # noqa: S608 - our own names
    )
    return ComparedTable(
        name,
        serving["rows"],
        rebuilt["rows"],
        differing[0]["total"] if differing else 0,
        tuple(row["key"] for row in differing),
    )
