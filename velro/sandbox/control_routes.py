"""How the sandbox is told what to do, and asked what it did: `/_sandbox/...`, without a key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, HTTPException

from velro.sandbox.faults import Faults  # noqa: TC001 - FastAPI reads it when it runs
from velro.sandbox.ledger import RequestStats, Stats, request_stats

if TYPE_CHECKING:
    from velro.sandbox.ledger import Ledger
    from velro.sandbox.media import MediaShelf
    from velro.sandbox.queue_routes import QueueRoutes
    from velro.sandbox.webhooks import SigningKey
    from velro.sandbox.work_queue import WorkQueue


class ControlRoutes:
    """Faults for all requests, statistics, and the keys that callbacks are signed with."""

    def __init__(
        self,
        *,
        queue: WorkQueue,
        shelf: MediaShelf,
        ledger: Ledger,
        queue_routes: QueueRoutes,
        key: SigningKey,
    ) -> None:
        self._queue = queue
        self._shelf = shelf
        self._ledger = ledger
        self._queue_routes = queue_routes
        self._key = key

    def router(self) -> APIRouter:
        """The routes, for an app to include before the queue's."""
        router = APIRouter()
        router.add_api_route("/.well-known/jwks.json", self.jwks, methods=["GET"])
        router.add_api_route("/_sandbox/health", self.health, methods=["GET"])
        router.add_api_route("/_sandbox/faults", self.faults, methods=["GET"])
        router.add_api_route("/_sandbox/faults", self.set_faults, methods=["PUT"])
        router.add_api_route("/_sandbox/stats", self.stats, methods=["GET"])
        router.add_api_route("/_sandbox/requests/{request_id}", self.request, methods=["GET"])
        router.add_api_route(
            "/_sandbox/files/{token}", self.kill, methods=["DELETE"], status_code=204
        )
        return router

    async def jwks(self) -> dict[str, Any]:
        """The public keys."""
        return self._key.jwks()

    async def health(self) -> dict[str, str]:
        """Answers when the sandbox does."""
        return {"status": "ok"}

    async def faults(self) -> Faults:
        """What every request suffers that does not say otherwise."""
        return self._queue_routes.default_faults

    async def set_faults(self, faults: Faults) -> Faults:
        """Exchange them all, for requests that come from now on; `{}` is normality."""
        self._queue_routes.default_faults = faults
        return faults

    async def stats(self) -> Stats:
        """Everything that was seen and made."""
        return self._ledger.stats(self._queue, self._shelf)

    async def request(self, request_id: str) -> RequestStats:
        """One request."""
        work = self._queue.works.get(request_id)
        if work is None:
            raise HTTPException(404)
        return request_stats(work, self._shelf)

    async def kill(self, token: str) -> None:
        """End a link now, bytes and all."""
        self._shelf.delete(token)
