"""The one place where the SQL files become callables; they carry no types of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiosql

if TYPE_CHECKING:
    from asyncpg import Connection, Record
    from asyncpg.pool import PoolConnectionProxy

    AnyConnection = Connection[Record] | PoolConnectionProxy[Record]

HERE = Path(__file__).parent


class Queries:
    """The named queries of one `.sql` file beside this one."""

    def __init__(self, file_name: str) -> None:
        # aiosql makes a query a method when it reads the file: no checker can know them.
        self._queries: Any = aiosql.from_path(  # pyright: ignore[reportUnknownMemberType] - its signature is untyped in part
            HERE / file_name, "asyncpg"
        )

    async def rows(
        self, connection: AnyConnection, name: str, **parameters: object
    ) -> list[Record]:
        """All rows of a query."""
        return [row async for row in getattr(self._queries, name)(connection, **parameters)]

    async def value(self, connection: AnyConnection, name: str, **parameters: object) -> Any:  # noqa: ANN401 - a column of any type
        """The one value of a query that is marked `$`."""
        return await getattr(self._queries, name)(connection, **parameters)

    async def run(self, connection: AnyConnection, name: str, **parameters: object) -> int:
        """Run a statement that is marked `!`; how many rows it changed."""
        status: str = await getattr(self._queries, name)(connection, **parameters)
        return int(status.rsplit(" ", 1)[-1])

    def sql(self, name: str) -> str:
        """The text that the server gets, for looking at its plan."""
        text: str = getattr(self._queries, name).sql
        return text
