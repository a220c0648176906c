"""Tells watchers that their generation changed: one query a round for all of them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from generation_svc.adapters.http.ports import ReadModelUnavailable, TooManyWatchers
from shared.projection.errors import NotReached, TooManyWaiters

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from generation_svc.adapters.http.reading import Reading

log = structlog.get_logger()


class Watching:
    """One watcher's ear."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._woken = asyncio.Event()

    @property
    def closing(self) -> bool:
        """Whether the service is shutting down."""
        return self._changes.closing

    async def changed(self, *, timeout_s: float) -> None:
        """Return when there may be something new, or time is up."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()

    def wake(self) -> None:
        """There may be something new."""
        self._woken.set()


class Changes:
    """Follows the read model while anybody watches. Used inside `running`.

    The read model says only how far it is, so each time it moves, one query asks for the
    positions of all watched generations, and only those that changed are read again.

    Attributes:
        closing: no watcher is to wait any more.
        watchers: how many watch now.
    """

    def __init__(
        self,
        reading: Reading,
        *,
        max_watchers: int = 500,
        pause_s: float = 0.05,
        recheck_s: float = 5.0,
    ) -> None:
        """Make one for a process.

        Args:
            reading: the read model.
            max_watchers: how many may watch at once.
            pause_s: the least time between two rounds.
            recheck_s: a round is made after so long whatever was heard: a rebuilt read model
                may be behind what it was.
        """
        self.closing = False
        self.watchers = 0
        self._reading = reading
        self._max_watchers = max_watchers
        self._pause_s = pause_s
        self._recheck_s = recheck_s
        self._watched: dict[str, set[Watching]] = {}
        self._somebody = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[asyncio.Task[None]]:
        """Wake watchers while the context is open; on leaving, end every watch.

        Yields the task, so that its owner notices when it ends early: that is a defect.
        """
        task = asyncio.create_task(self._follow(), name="changes of generations")
        # Nobody would wake the watchers any more: they end, and their callers come back.
        task.add_done_callback(lambda _: self.close())
        try:
            yield task
        finally:
            self.close()
            task.cancel()
            await asyncio.wait((task,))
            if not task.cancelled():
                task.result()

    @asynccontextmanager
    async def watching(self, generation_id: str) -> AsyncGenerator[Watching]:
        """Be woken when this generation changes. What changes after this is begun is not missed.

        Raises:
            TooManyWatchers: as many watch as may.
        """
        if self.watchers >= self._max_watchers:
            raise TooManyWatchers(f"{self._max_watchers} callers watch already")
        watching = Watching(self)
        self._watched.setdefault(generation_id, set()).add(watching)
        self.watchers += 1
        self._somebody.set()
        try:
            yield watching
        finally:
            self.watchers -= 1
            same = self._watched[generation_id]
            same.discard(watching)
            if not same:
                del self._watched[generation_id]

    def close(self) -> None:
        """End every watch, now and later: the service is shutting down."""
        self.closing = True
        for generation_id in self._watched:
            self._wake(generation_id)

    async def _follow(self) -> None:
        known: dict[str, int] = {}
        while True:
            if not self._watched:
                known.clear()
                self._somebody.clear()
                await self._somebody.wait()
            heard = self._reading.positions.position
            try:
                found = await self._reading.positions_of(list(self._watched))
            except ReadModelUnavailable as error:
                log.warning("watched_generations_unread", why=str(error))
                await asyncio.sleep(self._recheck_s)
                continue
            for generation_id, position in found.items():
                if known.get(generation_id) != position:
                    self._wake(generation_id)
            known = dict(found)
            # Between two rounds, so that a busy log costs a bounded number of queries.
            await asyncio.sleep(self._pause_s)
            try:
                await self._reading.reached(heard + 1, timeout_s=self._recheck_s)
            except NotReached:
                continue
            except TooManyWaiters:
                await asyncio.sleep(self._recheck_s)

    def _wake(self, generation_id: str) -> None:
        for watching in self._watched.get(generation_id, ()):
            watching.wake()
