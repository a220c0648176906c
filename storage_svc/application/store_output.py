"""Copy one output into the bucket and say in the log what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from shared.contracts.events import MediaLost, MediaStored, MigrationAttemptFailed
from shared.contracts.reasons import ReasonCode
from shared.media.copying import Copier, CopyFailed, CopyOrder
from storage_svc.domain.commands import Command, RecordAttemptFailed, RecordLost, RecordStored
from storage_svc.domain.decide import NothingToKeep
from storage_svc.domain.policies import FailedAttempt, GiveUp, TryAgain, answer_to
from storage_svc.domain.state import Kept, Lost, Missing, Stored

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from shared.contracts.events import StorageEvent
    from storage_svc.application.backlog import OutputRef
    from storage_svc.application.recording import Recorder

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class AlreadySettled:
    """The log said before that this output is stored or lost."""


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
class LostNow:
    """This attempt found out that nothing can help."""

    reason: ReasonCode
    detail: str


Outcome = AlreadySettled | StoredNow | FailedNow | LostNow


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

    async def __call__(self, ref: OutputRef, *, even_if_lost: bool = False) -> Outcome:
        """Copy one output, and record success, failure or loss. Safe to repeat.

        No lock and no transaction is held while bytes move: two workers at once copy the same
        bytes to the same key, and the log lets one of them say so.

        Args:
            ref: which output.
            even_if_lost: try again what was given up on: a person thinks that it may help.

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
            case Lost(attempts=attempts, reason=reason):
                if not even_if_lost:
                    return AlreadySettled()
            case Missing(attempts=attempts, reason=reason):
                pass

        command = await self._attempt(ref, kept, attempts + 1, reason)
        return _outcome(await self.recorder.record(ref.generation_id, command))

    async def _attempt(
        self, ref: OutputRef, kept: Kept, attempt: int, previous_reason: ReasonCode | None
    ) -> Command:
        started_at = self.clock()
        order = _order(ref, kept)
        try:
            stored = await self.copier.copy(order)
        except CopyFailed as failed:
            failure = failed
        except Exception as error:  # noqa: BLE001 - see below
            # Whatever broke, it must be seen as a failed attempt with its back-off: an error
            # that only a log line knows is retried for ever at full speed.
            _log.exception("copy_broke", generation_id=ref.generation_id, output=ref.output_index)
            failure = CopyFailed(ReasonCode.INTERNAL, f"{type(error).__name__}: {error}")
        else:
            took_s = (self.clock() - started_at).total_seconds()
            return RecordStored(ref.output_index, attempt, stored, max(took_s, 0.0))

        failed_at = self.clock()
        answer = answer_to(
            FailedAttempt(
                reason=failure.reason,
                attempt=attempt,
                previous_reason=previous_reason,
                failed_at=failed_at,
                dies_at=order.dies_at,
                retry_after_s=failure.retry_after_s,
                jitter=self.jitter(),
            )
        )
        match answer:
            case TryAgain(at=at):
                return RecordAttemptFailed(
                    ref.output_index, attempt, failure.reason, failure.detail, at
                )
            case GiveUp():
                return RecordLost(ref.output_index, attempt, failure.reason, failure.detail)


def _order(ref: OutputRef, kept: Kept) -> CopyOrder:
    output = kept.completed.outputs[ref.output_index]
    return CopyOrder(
        generation_id=ref.generation_id,
        output_index=ref.output_index,
        user_id=kept.completed.user_id,
        provider=kept.completed.provider,
        source_url=output.source_url,
        media_type=output.media_type,
        dies_at=output.expires_at,
    )


def _outcome(events: tuple[StorageEvent, ...]) -> Outcome:
    if not events:
        return AlreadySettled()
    match events[0]:
        case MediaStored() as stored:
            return StoredNow(stored.object.size_bytes, stored.took_s)
        case MigrationAttemptFailed() as failed:
            return FailedNow(failed.reason, failed.detail, failed.retry_at)
        case MediaLost() as lost:
            return LostNow(lost.reason, lost.detail)
        case other:
            raise AssertionError(f"no decision begins with {type(other).__name__}")
