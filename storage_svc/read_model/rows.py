"""The backlog's fold: what the rows of one generation become with each event."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from shared.contracts.envelope import UnknownEvent
from shared.contracts.events import (
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    GenerationRequested,
    GenerationSubmitted,
    LinksNotRenewed,
    LinksRenewed,
    MediaLost,
    MediaStored,
    MigrationAttemptFailed,
    MigrationCompleted,
    QuarantineRejected,
    QuarantineReleased,
    RefetchRequested,
    SourcesDeleted,
    StorageFailed,
    SubmissionStarted,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from shared.contracts.envelope import Envelope, Recorded
    from shared.contracts.events import Output


class EntryState(StrEnum):
    """What became of an output so far."""

    PENDING = "pending"
    STORED = "stored"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Entry:
    """One output that was not stored when its generation completed.

    Attributes:
        turn: its place among the outputs of its user with the same deadline; None until saved.
    """

    output_index: int
    source_url: str
    dies_at: datetime
    turn: int | None
    state: EntryState
    attempts: int
    next_attempt_at: datetime | None
    reason: str | None = None
    detail: str | None = None
    failed_at: datetime | None = None
    bucket: str | None = None
    object_key: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    media_type: str | None = None
    took_s: float | None = None
    settled_at: datetime | None = None

    @property
    def source_host(self) -> str:
        """The host that the link leads to; empty where the link is not one."""
        try:
            return urlsplit(self.source_url).hostname or ""
        except ValueError:
            return ""


@dataclass(frozen=True, slots=True)
class Backlog:
    """The outputs of one generation that had to be migrated, by index."""

    user_id: str
    provider: str
    position: int
    entries: tuple[Entry, ...]


# One table, read from top to bottom: split up, nobody could see that it covers everything.
def evolve(row: Backlog | None, recorded: Recorded) -> Backlog | None:  # noqa: PLR0911
    """The row after one event."""
    envelope = recorded.envelope
    match envelope.data, row:
        case GenerationCompleted() as completed, None:
            return _opened(completed, recorded)
        case StorageFailed(failures=failures), Backlog():
            for failure in failures:
                reason, detail = failure.reason.value, failure.detail
                row = _changed(row, failure.index, lambda e, r=reason, d=detail: _told(e, r, d))
            return row
        case MediaStored(index=index) as stored, Backlog():
            return _changed(row, index, lambda entry: _stored(entry, stored, envelope))
        case MigrationAttemptFailed(index=index) as failed, Backlog():
            return _changed(row, index, lambda entry: _failed(entry, failed, envelope))
        case MediaLost(index=index) as lost, Backlog():
            return _changed(row, index, lambda entry: _lost(entry, lost, envelope))
        case (
            (
                GenerationCompleted()
                | StorageFailed()
                | MediaStored()
                | MigrationAttemptFailed()
                | MediaLost()
            ),
            _,
        ):
            return row  # completed twice, or about a generation with nothing to migrate
        case (
            (
                GenerationRequested()
                | SubmissionStarted()
                | GenerationSubmitted()
                | GenerationFailed()
                | GenerationCancelled()
                | MigrationCompleted()
                | QuarantineReleased()
                | QuarantineRejected()
                | RefetchRequested()
                | LinksRenewed()
                | LinksNotRenewed()
                | SourcesDeleted()
                | UnknownEvent()
            ),
            _,
        ):
            return row


def _opened(completed: GenerationCompleted, recorded: Recorded) -> Backlog | None:
    missing = [output for output in completed.outputs if output.stored is None]
    if not missing:
        return None
    return Backlog(
        user_id=completed.user_id,
        provider=completed.provider,
        position=recorded.position,
        entries=tuple(_pending(output, recorded.envelope.time) for output in missing),
    )


def _pending(output: Output, completed_at: datetime) -> Entry:
    return Entry(
        output_index=output.index,
        source_url=output.source_url,
        dies_at=output.expires_at,
        turn=None,
        state=EntryState.PENDING,
        attempts=0,
        next_attempt_at=completed_at,
    )


def _changed(row: Backlog, index: int, change: Callable[[Entry], Entry]) -> Backlog:
    return replace(
        row,
        entries=tuple(
            change(entry) if entry.output_index == index else entry for entry in row.entries
        ),
    )


def _told(entry: Entry, reason: str, detail: str) -> Entry:
    """Why storing at once failed; what the migration found out since says more."""
    if entry.state is not EntryState.PENDING or entry.attempts:
        return entry
    return replace(entry, reason=reason, detail=detail)


def _stored(entry: Entry, stored: MediaStored, envelope: Envelope) -> Entry:
    if entry.state is EntryState.STORED:
        return entry
    return replace(
        entry,
        state=EntryState.STORED,
        attempts=stored.attempt,
        next_attempt_at=None,
        reason=None,
        detail=None,
        bucket=stored.object.bucket,
        object_key=stored.object.key,
        size_bytes=stored.object.size_bytes,
        sha256=stored.object.sha256,
        media_type=stored.object.media_type,
        took_s=stored.took_s,
        settled_at=envelope.time,
    )


def _failed(entry: Entry, failed: MigrationAttemptFailed, envelope: Envelope) -> Entry:
    if entry.state is not EntryState.PENDING or failed.attempt <= entry.attempts:
        return entry
    return replace(
        entry,
        attempts=failed.attempt,
        next_attempt_at=failed.retry_at,
        reason=failed.reason.value,
        detail=failed.detail,
        failed_at=envelope.time,
    )


def _lost(entry: Entry, lost: MediaLost, envelope: Envelope) -> Entry:
    if entry.state is not EntryState.PENDING:
        return entry
    return replace(
        entry,
        state=EntryState.LOST,
        attempts=lost.attempt,
        next_attempt_at=None,
        reason=lost.reason.value,
        detail=lost.detail,
        failed_at=envelope.time,
        settled_at=envelope.time,
    )
