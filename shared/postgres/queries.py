"""The one place where `.sql` files become callables; they carry no types of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiosql

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from asyncpg import Connection, Record
    from asyncpg.pool import PoolConnectionProxy

    AnyConnection = Connection[Record] | PoolConnectionProxy[Record]


class Queries:
    """The named queries of one `.sql` file."""

    def __init__(self, file: Path) -> None:
        # aiosql makes a query a method when it reads the file: no checker can know them.
        self._queries: Any = aiosql.from_path(  # pyright: ignore[reportUnknownMemberType] - its signature is untyped in part
            file, "asyncpg"
        )
        self._file = file
        self._order: dict[str, list[str]] = self._queries.driver_adapter.var_sorted

    def __reduce__(self) -> tuple[type[Queries], tuple[Path]]:
        """Another process reads the file again."""
        return Queries, (self._file,)

    async def rows(
        self, connection: AnyConnection, name: str, **parameters: object
    ) -> list[Record]:
        """All rows of a query."""
        # Not through aiosql's own iterator: it makes two awaits of each row.
        return await connection.fetch(self.sql(name), *self._arguments(name, parameters))

    async def row(
        self, connection: AnyConnection, name: str, **parameters: object
    ) -> Record | None:
        """The first row of a query."""
        return await connection.fetchrow(self.sql(name), *self._arguments(name, parameters))

    async def value(self, connection: AnyConnection, name: str, **parameters: object) -> Any:  # noqa: ANN401 - a column of any type
        """The first value of the first row; None where there is none."""
        return await connection.fetchval(self.sql(name), *self._arguments(name, parameters))

    async def run(self, connection: AnyConnection, name: str, **parameters: object) -> int:
        """Run a statement; how many rows it changed, 0 for one that counts none."""
        status = await connection.execute(self.sql(name), *self._arguments(name, parameters))
        count = status.rsplit(" ", 1)[-1]
        return int(count) if count.isdigit() else 0

    def sql(self, name: str) -> str:
        """The text that the server gets, also for looking at its plan."""
        text: str = getattr(self._queries, name).sql
        return text

    def _arguments(self, name: str, parameters: dict[str, object]) -> Iterable[object]:
        return (parameters[each] for each in self._order.get(name, ()))
