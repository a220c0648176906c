"""The HTTP API over a log in memory, or over whatever a test brings."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

import httpx

from generation_svc.adapters.http.app import build_app
from generation_svc.adapters.http.changes import Changes
from generation_svc.adapters.http.ports import ObjectUrl
from generation_svc.adapters.http.reading import Reading
from generation_svc.application.deciding import Decider
from shared.errors import TryLater
from shared.event_log.memory import MemoryLog
from shared.projection.errors import NotReached

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

    from fastapi import FastAPI

    from generation_svc.adapters.http.ports import GenerationQueries, Positions
    from generation_svc.application.deciding import Decided
    from generation_svc.application.provider import WebhookCall
    from shared.contracts.facts import StoredObject
    from shared.event_log.port import EventLog

BODY: dict[str, Any] = {
    "user_id": "ada",
    "provider": "sandbox",
    "model": "sandbox/image",
    "input": {"prompt": "a lighthouse in a storm", "num_images": 2},
    "metadata": {"album": "lighthouses"},
}


def now() -> datetime:
    return datetime.now(UTC)


async def public_url(stored: StoredObject) -> ObjectUrl:
    return ObjectUrl(f"https://media.example/{stored.bucket}/{stored.key}")


async def no_webhooks(_provider: str, _id: str, _token: str, _call: WebhookCall) -> Decided:
    raise TryLater("this test has no webhooks")


async def all_ready() -> Mapping[str, str | None]:
    return {}


class NoReadModel:
    """A read model that is away, for tests of what does not read it."""

    position = 0

    async def get(self, generation_id: str) -> NoReturn:
        raise OSError(f"no read model to find {generation_id} in")

    async def list_page(self, **wanted: object) -> NoReturn:
        raise OSError(f"no read model to list {wanted} from")

    async def positions(self, generation_ids: Sequence[str]) -> NoReturn:
        raise OSError(f"no read model to find {generation_ids} in")

    async def wait_for(self, position: int, *, timeout_s: float) -> None:
        raise NotReached(f"not at {position} after {timeout_s} s")


@dataclass
class HttpService:
    """The parts of one service; what a test does not care about works on its own."""

    log: EventLog = field(default_factory=MemoryLog)
    queries: GenerationQueries = field(default_factory=NoReadModel)
    positions: Positions = field(default_factory=NoReadModel)
    accept_webhook: Callable[[str, str, str, WebhookCall], Awaitable[Decided]] = no_webhooks
    readiness: Callable[[], Awaitable[Mapping[str, str | None]]] = all_ready
    clock: Callable[[], datetime] = now
    max_watchers: int = 100

    def __post_init__(self) -> None:
        self.decider = Decider(self.log, clock=self.clock, source="velro/test")
        self.reading = Reading(self.queries, self.positions)
        self.changes = Changes(self.reading, max_watchers=self.max_watchers, pause_s=0.01)
        self.app: FastAPI = build_app(
            decider=self.decider,
            log=self.log,
            reading=self.reading,
            changes=self.changes,
            object_urls=public_url,
            accept_webhook=self.accept_webhook,
            providers=("sandbox", "fal"),
            readiness=self.readiness,
            clock=self.clock,
        )

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[httpx.AsyncClient]:
        """A client of the app over ASGI. What the app fails on is answered, not raised."""
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        async with (
            self.changes.running(),
            httpx.AsyncClient(transport=transport, base_url="http://velro.test") as client,
        ):
            yield client
