"""The backlog's fold: what the rows of one generation become with each event."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from shared.contracts.envelope import UnknownEvent
from shared.contracts.generation_events import (
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    GenerationRequested,
    GenerationSubmitted,
    LinksNotRenewed,
    LinksRenewed,
    SourcesDeleted,
    StorageFailed,
    SubmissionStarted,
)
from shared.contracts.storage_events import (
    MediaLost,
    MediaStored,
    MigrationAttemptFailed,
    MigrationCompleted,
    ObjectLost,
    QuarantineRejected,
    QuarantineReleased,
    RefetchRequested,
)
from storage_svc.read_model import entries

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.contracts.envelope import Recorded
    from storage_svc.read_model.entries import Entry


class Backlog(NamedTuple):
    """The outputs of one generation that had to be migrated, by index."""

    user_id: str
    provider: str
    position: int
    entries: tuple[Entry, ...]


def evolve(row: Backlog | None, recorded: Recorded) -> Backlog | None:
    """The row after one event; the same object where the event changes nothing."""
    if row is not None:
        return _gone_on(row, recorded)
    event = recorded.envelope.data
    return _opened(event, recorded) if isinstance(event, GenerationCompleted) else None


# One table, read from top to bottom: split up, nobody could see that it covers everything.
def _gone_on(row: Backlog, recorded: Recorded) -> Backlog:  # noqa: C901, PLR0911
    envelope = recorded.envelope
    match event := envelope.data:
        case StorageFailed(failures=failures):
            reasons = {each.index: (each.reason.value, each.detail) for each in failures}
            return _each(
                row,
                lambda entry: (
                    entries.told(entry, *reasons[entry.output_index])
                    if entry.output_index in reasons
                    else entry
                ),
            )
        case MediaStored():
            return _changed(row, event.index, lambda entry: entries.stored(entry, event, envelope))
        case MigrationAttemptFailed():
            return _changed(row, event.index, lambda entry: entries.failed(entry, event, envelope))
        case MediaLost():
            return _changed(row, event.index, lambda entry: entries.lost(entry, event, envelope))
        case ObjectLost():
            return _changed(
                row, event.index, lambda entry: entries.vanished(entry, event, envelope)
            )
        case QuarantineReleased():
            return _changed(
                row, event.index, lambda entry: entries.released(entry, event, envelope)
            )
        case QuarantineRejected():
            return _changed(row, event.index, lambda entry: entries.rejected(entry, event))
        case RefetchRequested():
            return _each(row, lambda entry: entries.awaiting(entry, event))
        case LinksRenewed():
            return _each(row, lambda entry: entries.renewed(entry, event, envelope))
        case LinksNotRenewed():
            return _each(row, lambda entry: entries.refused(entry, event, envelope))
        case (
            GenerationRequested()
            | SubmissionStarted()
            | GenerationSubmitted()
            | GenerationCompleted()
            | GenerationFailed()
            | GenerationCancelled()
            | MigrationCompleted()
            | SourcesDeleted()
            | UnknownEvent()
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
    changed = tuple([change(entry) for entry in row.entries])
    return row if changed == row.entries else row._replace(entries=changed)
