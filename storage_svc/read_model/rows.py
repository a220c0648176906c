"""The backlog's fold: what the rows of one generation become with each event."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

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
    ObjectLost,
    QuarantineRejected,
    QuarantineReleased,
    RefetchRequested,
    SourcesDeleted,
    StorageFailed,
    SubmissionStarted,
)
from storage_svc.read_model import entries

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.contracts.envelope import Recorded
    from storage_svc.read_model.entries import Entry


@dataclass(frozen=True, slots=True)
class Backlog:
    """The outputs of one generation that had to be migrated, by index."""

    user_id: str
    provider: str
    position: int
    entries: tuple[Entry, ...]


# One table, read from top to bottom: split up, nobody could see that it covers everything.
def evolve(row: Backlog | None, recorded: Recorded) -> Backlog | None:  # noqa: C901, PLR0911, PLR0912
    """The row after one event."""
    envelope = recorded.envelope
    match envelope.data, row:
        case GenerationCompleted() as completed, None:
            return _opened(completed, recorded)
        case StorageFailed(failures=failures), Backlog():
            for failure in failures:
                reason, detail = failure.reason.value, failure.detail
                row = _changed(
                    row, failure.index, lambda e, r=reason, d=detail: entries.told(e, r, d)
                )
            return row
        case MediaStored(index=index) as stored, Backlog():
            return _changed(row, index, lambda entry: entries.stored(entry, stored, envelope))
        case MigrationAttemptFailed(index=index) as failed, Backlog():
            return _changed(row, index, lambda entry: entries.failed(entry, failed, envelope))
        case MediaLost(index=index) as lost, Backlog():
            return _changed(row, index, lambda entry: entries.lost(entry, lost, envelope))
        case ObjectLost(index=index) as vanished, Backlog():
            return _changed(row, index, lambda entry: entries.vanished(entry, vanished, envelope))
        case QuarantineReleased(index=index) as released, Backlog():
            return _changed(row, index, lambda entry: entries.released(entry, released, envelope))
        case QuarantineRejected(index=index) as rejected, Backlog():
            return _changed(row, index, lambda entry: entries.rejected(entry, rejected))
        case RefetchRequested() as asked, Backlog():
            return _each(row, lambda entry: entries.awaiting(entry, asked))
        case LinksRenewed() as renewed, Backlog():
            return _each(row, lambda entry: entries.renewed(entry, renewed, envelope))
        case LinksNotRenewed() as refused, Backlog():
            return _each(row, lambda entry: entries.refused(entry, refused, envelope))
        case (
            (
                GenerationCompleted()
                | StorageFailed()
                | MediaStored()
                | MigrationAttemptFailed()
                | MediaLost()
                | ObjectLost()
                | QuarantineReleased()
                | QuarantineRejected()
                | RefetchRequested()
                | LinksRenewed()
                | LinksNotRenewed()
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
        entries=tuple(entries.opened(output, recorded.envelope.time) for output in missing),
    )


def _changed(row: Backlog, index: int, change: Callable[[Entry], Entry]) -> Backlog:
    return _each(row, lambda entry: change(entry) if entry.output_index == index else entry)


def _each(row: Backlog, change: Callable[[Entry], Entry]) -> Backlog:
    return replace(row, entries=tuple(change(entry) for entry in row.entries))
