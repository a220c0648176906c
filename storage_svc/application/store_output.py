"""Copy one output into the bucket and say in the log what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from shared.contracts.reasons import ReasonCode
from shared.contracts.storage_events import (
    MediaLost,
    MediaStored,
    MigrationAttemptFailed,
    RefetchRequested,
)
from shared.errors import in_words
from shared.media.copying import Copier, CopyFailed, CopyOrder
from storage_svc.domain.commands import (
    AskForLink,
    Command,
    EndWaiting,
    RecordAttemptFailed,
    RecordLost,
    RecordStored,
)
from storage_svc.domain.decide import NothingToKeep
from storage_svc.domain.policies import (
    FailedAttempt,
    GiveUp,
    Refetch,
    Refetching,
    TryAgain,
    answer_to,
)
from storage_svc.domain.state import AwaitingLink, Kept, Lost, Missing, Past, Stored

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from shared.contracts.storage_events import StorageEvent
    from storage_svc.application.backlog import OutputRef
    from storage_svc.application.recording import Recorder

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class AlreadySettled:
    """The log said before what became of this output: `how` is a sentence about that."""

    how: str = field(default="was stored before", compare=False)


@dataclass(frozen=True, slots=True)
class StoredNow:
    """This attempt stored it."""

    size_bytes: int
    took_s: float


@dataclass(frozen=True, slots=True)
class FailedNow:
    """This attempt failed; the next may start at `retry_at`."""

    reason: ReasonCode
    detail: str
    retry_at: datetime


@dataclass(frozen=True, slots=True)
class AwaitsLink:
    """The link is dead (`reason`), and a new one is waited for until `answer_by`.

    Attributes:
        tried: whether this attempt found that out; else it was asked for before.
    """

    reason: ReasonCode
    detail: str
    answer_by: datetime
    tried: bool = True


@dataclass(frozen=True, slots=True)
class LostNow:
    """Nothing can help, as this attempt found out.

    Attributes:
        tried: whether the link was tried for it; else a new one was waited for in vain.
    """

    reason: ReasonCode
    detail: str
    tried: bool = True


Outcome = AlreadySettled | StoredNow | FailedNow | AwaitsLink | LostNow


@dataclass(frozen=True, slots=True)
class StoreOutput:
    """The use case with what it needs.

    Attributes:
        jitter: a number from 0 to 1, another one each time.
    """

    copier: Copier
    recorder: Recorder
    clock: Callable[[], datetime]
    jitter: Callable[[], float]
    refetching: Refetching = field(default_factory=Refetching)

    async def __call__(self, ref: OutputRef, *, even_if_lost: bool = False) -> Outcome:
        """Copy one output, and record success, failure or loss. Safe to repeat.

        No lock and no transaction is held while bytes move: two workers at once copy the same
        bytes to the same key, and the log lets one of them say so.

        Args:
            ref: which output.
            even_if_lost: try again what was given up on, and ask once more for a new link: a
                person thinks that it may help.

        Raises:
            NothingToKeep: the log has no completed generation with this output.
            TryLater: the log could not be asked or written.
        """
        kept = (await self.recorder.load(ref.generation_id)).state
        if not isinstance(kept, Kept) or ref.output_index not in kept.outputs:
            raise NothingToKeep(f"the log has no output {ref.output_index} of {ref.generation_id}")
        match kept.outputs[ref.output_index]:
            case Stored():
                return AlreadySettled()
            case Lost(rejected=str() as why):
                return AlreadySettled(f"was rejected for good: {why}")
            case Lost(reason=reason) if not even_if_lost:
                return AlreadySettled(f"was given up on: {reason}")
            case AwaitingLink() as waiting:
                return await self._waited(ref, waiting)
            case Missing(past=past, reason=reason) | Lost(past=past, reason=reason):
                may_ask = self._may_ask(kept, None if even_if_lost else past)
                work = _Work(ref, kept, past, reason, may_ask)

        command = await self._attempt(work)
        return _outcome(await self.recorder.record(ref.generation_id, command))

    def _may_ask(self, kept: Kept, past: Past | None = None) -> bool:
        """Whether somebody can be asked for a new link, and was not asked too often."""
        limit = self.refetching.max_requests
        # Without a request of ours there is nothing that could be fetched again.
        there_is_one = kept.completed.request_id is not None and limit > 0
        return there_is_one and (past is None or past.requests < limit)

    async def _waited(self, ref: OutputRef, waiting: AwaitingLink) -> Outcome:
        events = await self.recorder.record(
            ref.generation_id, EndWaiting(ref.output_index, self.clock())
        )
        match events:
            case (MediaLost() as lost,):
                return LostNow(lost.reason, lost.detail, tried=False)
            case _:
                return AwaitsLink(waiting.reason, waiting.detail, waiting.answer_by, tried=False)

    async def _attempt(self, work: _Work) -> Command:
        started_at = self.clock()
        order = work.order()
        index, attempt, link = order.output_index, work.past.attempts + 1, work.past.link
        try:
            stored = await self.copier.copy(order)
        except CopyFailed as failed:
            failure = failed
        except Exception as error:  # noqa: BLE001 - see below
            # Whatever broke, it must be seen as a failed attempt with its back-off: an error
            # that only a log line knows is retried for ever at full speed.
            _log.exception("copy_broke", generation_id=order.generation_id, output=index)
            failure = CopyFailed(ReasonCode.INTERNAL, in_words(error))
        else:
            took_s = (self.clock() - started_at).total_seconds()
            return RecordStored(index, attempt, stored, max(took_s, 0.0))

        failed_at = self.clock()
        reason, detail = failure.reason, failure.detail
        answer = answer_to(
            FailedAttempt(
                reason=reason,
                attempt=attempt,
                previous_reason=work.previous_reason,
                failed_at=failed_at,
                dies_at=link.dies_at,
                retry_after_s=failure.retry_after_s,
                jitter=self.jitter(),
                may_ask=work.may_ask,
            )
        )
        match answer:
            case TryAgain(at=at):
                return RecordAttemptFailed(index, attempt, reason, detail, at)
            case Refetch():
                answer_by = failed_at + self.refetching.window
                return AskForLink(index, attempt, reason, detail, answer_by, link.request)
            case GiveUp():
                return RecordLost(index, attempt, reason, detail, link.request, failure.media_type)


@dataclass(frozen=True, slots=True)
class _Work:
    """One output that is going to be copied, and what its failure would depend on."""

    ref: OutputRef
    kept: Kept
    past: Past
    previous_reason: ReasonCode | None
    may_ask: bool

    def order(self) -> CopyOrder:
        completed = self.kept.completed
        return CopyOrder(
            generation_id=self.ref.generation_id,
            output_index=self.ref.output_index,
            user_id=completed.user_id,
            provider=completed.provider,
            source_url=self.past.link.source_url,
            media_type=completed.outputs[self.ref.output_index].media_type,
            dies_at=self.past.link.dies_at,
            as_is=self.past.as_is,
        )


def _outcome(events: tuple[StorageEvent, ...]) -> Outcome:
    match events:
        case ():
            return AlreadySettled("was settled by somebody else meanwhile")
        case (MediaStored() as stored, *_):
            return StoredNow(stored.object.size_bytes, stored.took_s)
        case (MigrationAttemptFailed() as failed, RefetchRequested() as asked):
            return AwaitsLink(failed.reason, failed.detail, asked.answer_by)
        case (MigrationAttemptFailed() as failed,):
            return FailedNow(failed.reason, failed.detail, failed.retry_at)
        case (MediaLost() as lost,):
            return LostNow(lost.reason, lost.detail)
        case _:
            raise AssertionError(f"no decision is {[type(event).__name__ for event in events]}")
