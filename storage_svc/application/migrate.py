"""Work off the backlog in batches, on a person's word or a timer's."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

import structlog

from shared.errors import TryLater
from storage_svc.application.store_output import (
    AlreadySettled,
    AwaitsLink,
    FailedNow,
    LostNow,
    Outcome,
    StoredNow,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from storage_svc.application.backlog import Lease, OutputRef
    from storage_svc.application.workers import Workers

_log = structlog.get_logger(__name__)

# So many lost and failed outputs are named in a summary; the backlog's report names all.
_NAMED = 100
# What others work on seems due all the time; it is looked at no more often than this.
_LEAST_REST_S = 2.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """One output that a batch could not store."""

    ref: OutputRef
    reason: str
    detail: str


@dataclass(slots=True)
class BatchSummary:
    """What came of one batch.

    Attributes:
        taken: outputs that were leased.
        already: of these, the ones that somebody else had settled meanwhile.
        failed: attempts that failed and will be made again, by reason.
        awaiting_link: dead links that whoever made them was asked to renew.
        undecided: outputs that the log could not be told about; they come again.
        bucket_was_away: copies were held back because the bucket kept failing.
    """

    taken: int = 0
    stored: int = 0
    stored_bytes: int = 0
    already: int = 0
    undecided: int = 0
    awaiting_link: int = 0
    failed: dict[str, int] = field(default_factory=dict[str, int])
    lost: int = 0
    lost_named: list[Trouble] = field(default_factory=list["Trouble"])
    bucket_was_away: bool = False

    def count_failed(self, reason: str, attempts: int) -> None:
        """Count failed attempts."""
        self.failed[reason] = self.failed.get(reason, 0) + attempts

    def add(self, lease: Lease, outcome: Outcome | None) -> None:
        """Count one output."""
        match outcome:
            case StoredNow(size_bytes=size_bytes):
                self.stored += 1
                self.stored_bytes += size_bytes
            case AlreadySettled():
                self.already += 1
            case AwaitsLink(tried=False):
                self.already += 1
            case AwaitsLink():
                self.awaiting_link += 1
            case FailedNow(reason=reason):
                self.count_failed(reason.value, 1)
            case LostNow(reason=reason, detail=detail):
                self.lost += 1
                if len(self.lost_named) < _NAMED:
                    self.lost_named.append(Trouble(lease.ref, reason.value, detail))
            case None:
                self.undecided += 1
            case _:
                assert_never(outcome)


@dataclass(slots=True)
class Migration:
    """Batches of work beside a running service, or instead of one.

    Attributes:
        workers: made for one batch, counting into its summary.
        level: brings the backlog level with the log, before a batch and after it.
        batch_size: outputs a batch, at most.
        shown: called with the summary of each batch.
        next_due: when something can be taken next, as the backlog knows it.
    """

    workers: Callable[[BatchSummary], Workers]
    level: Callable[[], Awaitable[None]]
    batch_size: int
    shown: Callable[[BatchSummary], Awaitable[None]]
    next_due: Callable[[], Awaitable[datetime | None]]
    clock: Callable[[], datetime]
    _current: Workers | None = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self) -> None:
        """Take nothing more, end what runs."""
        self._stop.set()
        if self._current is not None:
            self._current.stop()

    async def once(self) -> BatchSummary:
        """One batch: what is due now, the soonest death first.

        Raises:
            TryLater: the log or the database does not answer.
        """
        summary = BatchSummary()
        await self.level()
        if not self._stop.is_set():
            self._current = self.workers(summary)
            summary.taken = await self._current.run_batch(self.batch_size)
            summary.bucket_was_away = self._current.bucket_is_away
            await self.level()
        await self.shown(summary)
        return summary

    async def continuously(self, interval_s: float) -> BatchSummary:
        """Batch after batch until `stop`; what came of all together.

        It goes on while batches come back full. Then it rests until something is due, and no
        longer than `interval_s`: what is due sooner may be dead after the rest.
        """
        total = BatchSummary()
        while not self._stop.is_set():
            rest_s = interval_s
            try:
                batch = await self.once()
                _join(total, batch)
                if batch.taken == self.batch_size and not batch.bucket_was_away:
                    continue
                if (due := await self.next_due()) is not None:
                    rest_s = min(
                        interval_s, max((due - self.clock()).total_seconds(), _LEAST_REST_S)
                    )
            except TryLater as error:
                _log.warning("batch_put_off", error=str(error), rest_s=rest_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest_s):
                    await self._stop.wait()
        return total


def _join(total: BatchSummary, batch: BatchSummary) -> None:
    total.taken += batch.taken
    total.stored += batch.stored
    total.stored_bytes += batch.stored_bytes
    total.already += batch.already
    total.undecided += batch.undecided
    total.awaiting_link += batch.awaiting_link
    for reason, attempts in batch.failed.items():
        total.count_failed(reason, attempts)
    total.lost += batch.lost
    total.lost_named = (total.lost_named + batch.lost_named)[:_NAMED]
    total.bucket_was_away = batch.bucket_was_away
