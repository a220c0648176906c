"""The read model as the routes ask it: with a deadline, and one error for every way to be away."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

from generation_svc.adapters.http.ports import ReadModelUnavailable
from generation_svc.domain.decide import UnknownGeneration
from shared.postgres.connecting import POSTGRES_AWAY

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from generation_svc.adapters.http.ports import GenerationQueries, Positions
    from generation_svc.read_model.rows import Status, StorageState
    from generation_svc.read_model.views import GenerationView, Page

_AWAY = (
    *POSTGRES_AWAY,
    # No projector has made the tables yet, or a rebuild is between two versions of them.
    asyncpg.UndefinedTableError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.QueryCanceledError,
)


@dataclass(frozen=True, slots=True)
class Reading:
    """Reads the read model.

    Attributes:
        timeout_s: for one query, waiting for a connection included.
    """

    queries: GenerationQueries
    positions: Positions
    timeout_s: float = 5.0

    async def reached(self, position: int | None, *, timeout_s: float) -> None:
        """Wait until the read model holds the effect of every event up to there.

        Raises:
            NotReached: not before the deadline.
            TooManyWaiters: too many wait already.
        """
        if position is not None:
            await self.positions.wait_for(position, timeout_s=timeout_s)

    async def find(self, generation_id: str) -> GenerationView:
        """One generation.

        Raises:
            UnknownGeneration: the read model has none.
            ReadModelUnavailable: it cannot be read.
        """
        async with self._bounded():
            found = await self.queries.get(generation_id)
        if found is None:
            raise UnknownGeneration("there is no generation with this id, or not yet")
        return found

    async def page(
        self,
        *,
        user_id: str | None,
        status: Status | None,
        storage_state: StorageState | None,
        cursor: str | None,
        limit: int,
    ) -> Page:
        """Generations, the newest first.

        Raises:
            BadCursor: the cursor is none.
            ReadModelUnavailable: it cannot be read.
        """
        async with self._bounded():
            return await self.queries.list_page(
                user_id=user_id,
                status=status,
                storage_state=storage_state,
                cursor=cursor,
                limit=limit,
            )

    async def positions_of(self, generation_ids: Sequence[str]) -> Mapping[str, int]:
        """By which event each generation last changed.

        Raises:
            ReadModelUnavailable: it cannot be read.
        """
        async with self._bounded():
            return await self.queries.positions(generation_ids)

    @asynccontextmanager
    async def _bounded(self) -> AsyncGenerator[None]:
        try:
            async with asyncio.timeout(self.timeout_s):
                yield
        except _AWAY as error:
            raise ReadModelUnavailable(
                f"the read model gave no answer: {type(error).__name__}"
            ) from error
