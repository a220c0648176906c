"""Waiting until a read model has reached a position: one listening connection a process."""

from __future__ import annotations

import asyncio
import heapq
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import structlog

from shared.postgres.connecting import POSTGRES_AWAY, close, connect
from shared.projection.errors import NotReached, TooManyWaiters
from shared.projection.tables import QUERIES, channel_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_log = structlog.get_logger(__name__)

# Notifications are lost with their connection only, so this re-check is a second net.
_RECHECK_S: Final = 2.0
_PAUSE_S: Final = 0.5


class PositionWatch:
    """Knows how far a read model is, and wakes who waits for it. Used inside `running`.

    Attributes:
        position: the last that was heard of; 0 before the first word.
        max_waiters: how many may wait at once.
    """

    def __init__(self, dsn: str, schema: str, *, max_waiters: int = 1000) -> None:
        self.position = 0
        self.max_waiters = max_waiters
        self._dsn = dsn
        self._schema = schema
        # The lowest position first; the count keeps futures from being compared.
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._waiting = 0
        self._heard = 0
        self._turn = count()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Listen while the context is open."""
        task = asyncio.create_task(self._listen(), name=f"position watch {self._schema}")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))
            if not task.cancelled():
                task.result()

    async def wait_for(self, position: int, *, timeout_s: float) -> None:
        """Return once the read model holds the effect of every event up to `position`.

        Raises:
            NotReached: not before the deadline; the message says how far it is.
            TooManyWaiters: `max_waiters` wait already.
        """
        if self.position >= position:
            return
        if self._waiting >= self.max_waiters:
            raise TooManyWaiters(f"{self.max_waiters} callers wait for {self._schema} already")
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (position, next(self._turn), reached))
        self._waiting += 1
        try:
            async with asyncio.timeout(timeout_s):
                await reached
        except TimeoutError as error:
            raise NotReached(
                f"read model {self._schema} is at position {self.position}, "
                f"and was not at {position} within {timeout_s} s"
            ) from error
        finally:
            self._waiting -= 1
            self._forget_the_gone()

    async def _listen(self) -> None:
        while True:
            try:
                await self._listen_once()
            except asyncpg.UndefinedTableError:
                pass  # no projector has made the tables yet
            except POSTGRES_AWAY as error:
                _log.warning("position_watch_interrupted", schema=self._schema, reason=str(error))
            await asyncio.sleep(_PAUSE_S)

    async def _listen_once(self) -> None:
        connection = await connect(
            self._dsn,
            schema=self._schema,
            application_name=f"velro watch {self._schema}",
            command_timeout_s=5.0,
        )
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            # Listening first, reading second: nothing moves unheard between the two.
            await connection.add_listener(channel_of(self._schema), self._on_notification)
            while not lost.is_set():
                heard = self._heard
                checkpoint = await QUERIES.row(connection, "checkpoint")
                # What was notified of meanwhile is newer than what was read.
                if checkpoint is not None and heard == self._heard:
                    self._arrived(checkpoint["position"])
                try:
                    async with asyncio.timeout(_RECHECK_S):
                        await lost.wait()
                except TimeoutError:
                    continue
        finally:
            await close(connection)

    # asyncpg's listeners take four arguments of its own types.
    def _on_notification(self, _connection: Any, _pid: int, _channel: str, payload: Any) -> None:  # noqa: ANN401 - as asyncpg calls it
        self._heard += 1
        self._arrived(int(payload))

    def _arrived(self, position: int) -> None:
        # Not the highest ever heard of: a rebuild from a shorter log goes back.
        self.position = position
        while self._waiters and self._waiters[0][0] <= position:
            _, _, reached = heapq.heappop(self._waiters)
            if not reached.done():
                reached.set_result(None)

    def _forget_the_gone(self) -> None:
        # Those who gave up stay in the heap until half of it is theirs: each is then paid for once.
        if len(self._waiters) > 2 * self._waiting:
            self._waiters = [waiter for waiter in self._waiters if not waiter[2].done()]
            heapq.heapify(self._waiters)
