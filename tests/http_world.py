"""The HTTP API over a real log and a real read model that a real projector keeps."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from generation_svc.read_model.model import NAME
from generation_svc.read_model.queries import GenerationQueries
from shared.postgres.connecting import open_pool
from tests.generation_events import NOON
from tests.http_service import HttpService
from tests.projecting import World, world

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from datetime import datetime

    import httpx

    from generation_svc.read_model.rows import Status, StorageState
    from generation_svc.read_model.views import GenerationView, Page
    from shared.contracts.subjects import Subjects


@dataclass(slots=True)
class Clock:
    """What time it is for the API."""

    at: datetime = NOON

    def __call__(self) -> datetime:
        return self.at


@dataclass(slots=True)
class CountedQueries:
    """The real queries, and what of them was asked.

    Attributes:
        reads: the generations that were read, in order.
        rounds: the generations whose positions were asked for, each time.
    """

    real: GenerationQueries
    reads: list[str] = field(default_factory=list[str])
    rounds: list[list[str]] = field(default_factory=list[list[str]])

    async def get(self, generation_id: str) -> GenerationView | None:
        self.reads.append(generation_id)
        return await self.real.get(generation_id)

    async def list_page(
        self,
        *,
        user_id: str | None,
        status: Status | None,
        storage_state: StorageState | None,
        cursor: str | None,
        limit: int,
    ) -> Page:
        return await self.real.list_page(
            user_id=user_id, status=status, storage_state=storage_state, cursor=cursor, limit=limit
        )

    async def positions(self, generation_ids: Sequence[str]) -> dict[str, int]:
        self.rounds.append(sorted(generation_ids))
        return await self.real.positions(generation_ids)


@dataclass(slots=True)
class Api:
    """A service, its client, its clock, its queries, and the world that it reads."""

    world: World
    service: HttpService
    client: httpx.AsyncClient
    clock: Clock
    queries: CountedQueries

    async def get(self, path: str, at_least: int, **query: str | int) -> httpx.Response:
        """Ask once the read model is there."""
        return await self.client.get(
            f"/v1/generations{path}", params={"at_least": at_least, "wait_s": 20, **query}
        )

    async def generation(self, generation_id: str, at_least: int) -> dict[str, Any]:
        """One generation once the read model is there."""
        answer = await self.get(f"/{generation_id}", at_least)
        assert answer.status_code == 200, answer.text
        return answer.json()


@asynccontextmanager
async def api(
    nats_url: str, stream: str, subjects: Subjects, dsn: str, *, max_watchers: int = 100
) -> AsyncGenerator[Api]:
    """Everything runs while the context is open. The clock stands until it is set."""
    async with AsyncExitStack() as stack:
        around = await stack.enter_async_context(world(nats_url, stream, subjects, dsn))
        await stack.enter_async_context(around.projector().running())
        pool = await open_pool(dsn, schema=NAME, application_name="test")
        stack.push_async_callback(pool.close)
        clock = Clock()
        queries = CountedQueries(GenerationQueries(pool))
        service = HttpService(
            log=around.log,
            queries=queries,
            positions=around.watch,
            clock=clock,
            max_watchers=max_watchers,
        )
        client = await stack.enter_async_context(service.client())
        yield Api(around, service, client, clock, queries)
