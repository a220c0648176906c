"""A bounded number of copies at once, each under a lease, the soonest death first."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from shared.errors import Conflict, TryLater
from storage_svc.application.backlog import BacklogUnavailable
from storage_svc.application.gate import BUCKET_REASONS, Gate
from storage_svc.application.telling import tell

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from datetime import datetime

    from storage_svc.application.backlog import Backlog, Lease, OutputRef
    from storage_svc.application.store_output import Outcome

_log = structlog.get_logger(__name__)

# Without news the backlog is looked at this often all the same: a notification may be lost.
IDLE_S = 15.0
# A row that is due and cannot be had (another process holds its lock) is looked for this often.
_BUSY_S = 0.2
_GATHER_S = 0.01
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
RELEASE_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How work is shared.

    Attributes:
        owner: names this process and start in leases.
        concurrency: copies at once.
        lease_s: how long an output stays with a process that died.
        drain_s: how long running copies get to end when the process is told to stop.
    """

    owner: str
    concurrency: int
    lease_s: float
    drain_s: float


class Workers:
    """Takes outputs from the backlog and stores them, until told to stop or out of work.

    Attributes:
        last_turn: when its loop last went round, on the monotonic clock.
        backlog_answers: whether the last look at the backlog got an answer.
    """

    def __init__(
        self,
        *,
        backlog: Backlog,
        store: Callable[[OutputRef], Awaitable[Outcome]],
        clock: Callable[[], datetime],
        jitter: Callable[[], float],
        settings: WorkerSettings,
        ended: Callable[[Lease, Outcome | None], None] = lambda _lease, _outcome: None,
    ) -> None:
        self._backlog = backlog
        self._store = store
        self._clock = clock
        self._jitter = jitter
        self._settings = settings
        self._ended = ended
        self._gate = Gate()
        self._running: dict[OutputRef, asyncio.Task[None]] = {}
        self._news = asyncio.Event()
        self._releasing: asyncio.Task[None] | None = None
        self._stopping = False
        self._taken = 0
        self._pause_s = 0.0
        self._paused_until = clock()
        self.last_turn = time.monotonic()
        self.backlog_answers = True

    @property
    def running(self) -> int:
        """How many copies are under way."""
        return len(self._running)

    @property
    def bucket_is_away(self) -> bool:
        """Whether copies wait for the bucket."""
        return self._gate.bucket_is_away

    def wake(self) -> None:
        """There may be something new in the backlog."""
        self._news.set()

    def stop(self) -> None:
        """Take nothing more; what runs gets its time to end."""
        self._stopping = True
        self._news.set()

    async def run(self) -> None:
        """Work until `stop`, then drain."""
        async with self._leases_held():
            while not self._stopping:
                self._news.clear()
                wait_s = await self._look(self._settings.concurrency)
                await self._wait_for_news(wait_s)

    async def run_batch(self, max_outputs: int) -> int:
        """Work until nothing is due, on so many outputs at most; how many were taken.

        Raises:
            BacklogUnavailable: the database does not answer.
        """
        before = self._taken
        async with self._leases_held():
            while not self._stopping:
                self._news.clear()
                await self._take(max_outputs - (self._taken - before))
                if not self._running:
                    break
                await self._wait_for_news(IDLE_S)
        return self._taken - before

    async def _look(self, max_rows: int) -> float:
        """Take what can be taken; how long to wait then, in seconds, where there is no news."""
        self.last_turn = time.monotonic()
        try:
            wait_s = await self._take(max_rows)
        except BacklogUnavailable as error:
            self.backlog_answers = False
            return self._pause("backlog_not_available", error)
        self.backlog_answers = True
        return wait_s

    async def _take(self, max_rows: int) -> float:
        now = self._clock()
        if now < self._paused_until:
            return (self._paused_until - now).total_seconds()
        free = min(self._settings.concurrency - len(self._running), max_rows)
        admission = self._gate.admits(now, free=free, running=len(self._running))
        if not admission.max_rows:
            return self._until(admission.changes_at, now)
        leases = await self._backlog.lease(
            owner=self._settings.owner,
            now=now,
            until=now + timedelta(seconds=self._settings.lease_s),
            max_rows=admission.max_rows,
            closed_hosts=admission.closed_hosts,
            probed_hosts=admission.probed_hosts,
        )
        refused = [lease.ref for lease in leases if not self._start(lease, now)]
        if refused:
            await self._give_back(refused)
        if len(leases) == admission.max_rows:
            return IDLE_S if len(self._running) == self._settings.concurrency else _BUSY_S
        due = await self._backlog.next_due()
        return min(self._until(due, now), self._until(admission.changes_at, now))

    def _until(self, moment: datetime | None, now: datetime) -> float:
        if moment is None:
            return IDLE_S
        return min(max((moment - now).total_seconds(), _BUSY_S), IDLE_S)

    async def _wait_for_news(self, at_most_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._news.wait()
                if self._running:
                    # Others end at the same time: one look at the backlog serves them all.
                    await asyncio.sleep(_GATHER_S)

    def _pause(self, why: str, error: Exception) -> float:
        """Nothing can be done just now, whatever the output: wait, longer each time."""
        self._pause_s = min(max(self._pause_s * 2, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
        self._paused_until = self._clock() + timedelta(seconds=self._pause_s)
        _log.warning(why, error=str(error), pause_s=self._pause_s)
        return self._pause_s

    def _start(self, lease: Lease, now: datetime) -> bool:
        if lease.ref in self._running or not self._gate.starts(lease, now):
            return lease.ref in self._running  # ours already, under a lease that ran out
        task = asyncio.create_task(self._work(lease), name=f"store {lease.ref}")
        self._running[lease.ref] = task
        self._taken += 1
        return True

    async def _work(self, lease: Lease) -> None:
        outcome: Outcome | None = None
        try:
            outcome = await self._store(lease.ref)
            self._pause_s = 0.0
        except (TryLater, Conflict) as error:
            # Neither stored nor said why not: the log is away. The next one would fare alike.
            self._pause("not_recorded", error)
            await self._give_back([lease.ref])
        except Exception:  # noqa: BLE001 - a worker outlives its work; the lease is the back-off
            _log.exception("worker_broke", generation_id=lease.generation_id)
        finally:
            was_away = self._gate.bucket_is_away
            self._gate.ended(lease, outcome, self._clock())
            del self._running[lease.ref]
            self._news.set()
        if was_away and not self._gate.bucket_is_away:
            self._release_what_waited()
        tell(lease, outcome)
        self._ended(lease, outcome)

    def _release_what_waited(self) -> None:
        """What failed because of the bucket becomes due before its time, a little at once."""
        if self._releasing is None or self._releasing.done():
            self._releasing = asyncio.create_task(self._release(self._clock()), name="release")

    async def _release(self, back_at: datetime) -> None:
        while not self._stopping and not self._gate.bucket_is_away:
            try:
                released = await self._backlog.release(
                    BUCKET_REASONS, failed_before=back_at, max_rows=self._settings.concurrency
                )
            except BacklogUnavailable as error:
                _log.warning("release_failed", error=str(error))
                return  # each has its own next attempt all the same
            if not released:
                return
            self._news.set()
            await asyncio.sleep(RELEASE_EVERY_S * (0.5 + self._jitter()))

    @contextlib.asynccontextmanager
    async def _leases_held(self) -> AsyncGenerator[None]:
        ticker = asyncio.create_task(self._hold_leases(), name="hold leases")
        try:
            yield
        finally:
            await self._drain()
            helpers = [task for task in (ticker, self._releasing) if task is not None]
            for task in helpers:
                task.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    async def _hold_leases(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_s / 3)
            if not self._running:
                continue
            held = set(self._running)
            until = self._clock() + timedelta(seconds=self._settings.lease_s)
            try:
                still = await self._backlog.renew(held, owner=self._settings.owner, until=until)
            except BacklogUnavailable as error:
                _log.warning("leases_not_renewed", error=str(error))
                continue
            # Not stopped: two copies of one output are one object and one event.
            for ref in (held - still) & set(self._running):
                _log.info("lease_lost", generation_id=ref.generation_id, output=ref.output_index)

    async def _drain(self) -> None:
        if not self._running:
            return
        tasks = dict(self._running)
        await asyncio.wait(tasks.values(), timeout=self._settings.drain_s)
        unfinished = [ref for ref, task in tasks.items() if not task.done()]
        for ref in unfinished:
            tasks[ref].cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        await self._give_back(unfinished)

    async def _give_back(self, refs: list[OutputRef]) -> None:
        try:
            await self._backlog.give_back(refs, owner=self._settings.owner)
        except BacklogUnavailable as error:
            _log.warning("leases_not_given_back", error=str(error))  # they run out by themselves
