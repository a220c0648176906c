"""Two routes for whoever watches the process: is it alive, and does it get on with its work."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.responses import JSONResponse

if TYPE_CHECKING:
    from shared.archive.archived_log import ArchivedLog
    from shared.messaging.deliveries import DeliveringClient
    from shared.projection.runner import Projector
    from shared.projection.waiting import PositionWatch
    from storage_svc.application.workers import Workers
    from storage_svc.read_model.rows import Backlog

# Without a move for so long, with events to move to, something is stuck though all is connected.
STALLED_S = 30.0
# The workers look around at least every 15 s; a loop that has not for so long hangs.
_HANGING_S = 60.0


@dataclass(slots=True)
class Health:
    """What the process can say about itself. Progress counts; connections alone prove nothing."""

    connection: DeliveringClient
    log: ArchivedLog
    projector: Projector[Backlog]
    watch: PositionWatch
    workers: Workers
    _position: int = -1
    _moved_at: float = field(default_factory=time.monotonic)

    async def problems(self) -> dict[str, str]:
        """What keeps it from getting on with its work, by part; empty when all is well."""
        found: dict[str, str] = {}
        if self.connection.problem:
            found["nats"] = self.connection.problem
        projection = await self.projector.health()
        if projection.problem:
            found["projector"] = projection.problem
        if projection.log_end is None:
            found["log"] = "no answer"
        elif self.log.problem:
            found["log"] = self.log.problem
        elif self._stalled(projection.log_end):
            found["projection"] = f"at {self._position} of {projection.log_end}, and not moving"
        if not self.workers.backlog_answers:
            found["backlog"] = "the database does not answer"
        return found | self.hanging()

    def hanging(self) -> dict[str, str]:
        """What only a new process can mend."""
        silent_s = time.monotonic() - self.workers.last_turn
        if silent_s > _HANGING_S:
            return {"workers": f"no sign of life for {silent_s:.0f} s"}
        return {}

    def _stalled(self, log_end: int) -> bool:
        # Asked of the tables, not of this process: another one may be projecting.
        if self.watch.position != self._position or self._position >= log_end:
            self._position = self.watch.position
            self._moved_at = time.monotonic()
        return time.monotonic() - self._moved_at > STALLED_S


def health_app(health: Health) -> FastAPI:
    """`/healthz`: not beyond mending. `/readyz`: getting on with its work."""
    app = FastAPI(title="Velro storage service", docs_url=None, redoc_url=None)

    @app.get("/healthz")
    async def healthz() -> JSONResponse:  # pyright: ignore[reportUnusedFunction] - a route
        return _answer(health.hanging())

    @app.get("/readyz")
    async def readyz() -> JSONResponse:  # pyright: ignore[reportUnusedFunction] - a route
        return _answer(await health.problems())

    return app


def _answer(problems: dict[str, str]) -> JSONResponse:
    if problems:
        return JSONResponse({"status": "failing", "problems": problems}, status_code=503)
    return JSONResponse({"status": "ok"})
