"""What a generation's row becomes with each event, of both services, in the log's order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pydantic_core import to_json

from generation_svc.read_model.rows import (
    Asked,
    Failure,
    GenerationRow,
    Migration,
    OutputRow,
    Status,
)
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

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from shared.contracts.envelope import Recorded
    from shared.contracts.generation_events import RenewedLink

# Python 3.11 asks a descriptor written in Python for every member that is named by its class.
_REQUESTED: Final = Status.REQUESTED
_SUBMITTING: Final = Status.SUBMITTING
_RUNNING: Final = Status.RUNNING
_COMPLETED: Final = Status.COMPLETED
_NOT_RUNNING: Final = (_REQUESTED, _SUBMITTING)


def evolve(row: GenerationRow | None, recorded: Recorded) -> GenerationRow | None:
    """The row after one event; the same object where the event changes nothing."""
    return _begun(recorded) if row is None else _gone_on(row, recorded)


def _begun(recorded: Recorded) -> GenerationRow | None:
    match recorded.envelope.data:
        case GenerationRequested() as event:
            return _requested(event, recorded)
        case GenerationCompleted() as event:
            return _completed(_made_elsewhere(event, recorded), event, recorded)
        case _:
            return None  # about a generation that is elsewhere by now


# One table, read from top to bottom: split up, nobody could see that it covers everything. Every
# event ever written passes here, so a case names a class alone and asks the row afterwards: a class
# beside a row takes 0.2 us where it does not fit, and most do not. What comes often comes first.
def _gone_on(row: GenerationRow, recorded: Recorded) -> GenerationRow:  # noqa: C901, PLR0911, PLR0912
    event = recorded.envelope.data
    match event:
        case SubmissionStarted() if row.status in _NOT_RUNNING:
            return _changed(row, recorded, status=_SUBMITTING, attempts=event.attempt)
        case GenerationSubmitted() if row.status in _NOT_RUNNING:
            return _changed(
                row,
                recorded,
                status=_RUNNING,
                attempts=event.attempt,
                request_id=event.request_id,
            )

        case GenerationCompleted() if not row.status.finished:
            return _completed(row, event, recorded)
        case GenerationCompleted() if row.failure is not None and row.failure.given_up:
            return _completed(row._replace(failure=None), event, recorded)
        case MediaStored():
            stored = event.object
            return _with_output(row, recorded, event.index, lambda output: output.kept(stored))
        case StorageFailed() if row.status is _COMPLETED and row.storage_failed_at is None:
            reasons = {failure.index: failure.reason.value for failure in event.failures}
            outputs = tuple(
                replace(output, failure_reason=reasons[index])
                if index in reasons and output.stored is None
                else output
                for index, output in enumerate(row.outputs)
            )
            return _changed(
                row, recorded, outputs=outputs, storage_failed_at=recorded.envelope.time
            )
        case MigrationCompleted() if row.migration is None and row.all_stored:
            migration = Migration(recorded.envelope.time, event.total_size_bytes, event.file_count)
            return _changed(row, recorded, migration=migration)

        case GenerationFailed() if not row.status.finished:
            failure = Failure(
                event.code, event.detail, event.retryable, event.billed, bool(event.given_up)
            )
            return _finished(row, recorded, Status.FAILED, failure=failure)
        case GenerationCancelled() if not row.status.finished:
            return _finished(row, recorded, Status.CANCELLED)
        case MigrationAttemptFailed(reason=reason):
            # Also after a loss: a person tried again, and so will the service.
            return _with_output(
                row,
                recorded,
                event.index,
                lambda output: replace(output, failure_reason=reason.value, lost_reason=None),
            )
        case QuarantineReleased():
            return _with_output(
                row, recorded, event.index, lambda output: replace(output, lost_reason=None)
            )
        case LinksRenewed(links=links):
            return _relinked(row, links, recorded)
        case MediaLost(reason=reason):
            return _with_output(
                row,
                recorded,
                event.index,
                lambda output: replace(output, lost_reason=output.lost_reason or reason.value),
            )
        case ObjectLost():
            return _without_object(row, event, recorded)

        case (
            GenerationRequested()
            | SubmissionStarted()
            | GenerationSubmitted()
            | GenerationCompleted()
            | GenerationFailed()
            | GenerationCancelled()
            | StorageFailed()
            | MigrationCompleted()
        ):
            return row  # said before
        case (
            QuarantineRejected()
            | RefetchRequested()
            | LinksNotRenewed()
            | SourcesDeleted()
            | UnknownEvent()
        ):
            return row


def _requested(event: GenerationRequested, recorded: Recorded) -> GenerationRow:
    at = recorded.envelope.time
    return GenerationRow(
        position=recorded.position,
        user_id=event.user_id,
        provider=event.provider,
        model=event.model,
        asked=Asked(to_json(event.input).decode(), to_json(event.metadata).decode()),
        status=_REQUESTED,
        attempts=0,
        request_id=None,
        failure=None,
        created_at=at,
        updated_at=at,
        finished_at=None,
        outputs=(),
        storage_failed_at=None,
        migration=None,
    )


def _made_elsewhere(event: GenerationCompleted, recorded: Recorded) -> GenerationRow:
    """The row of media that another service made: nobody asked us for it."""
    at = recorded.envelope.time
    return GenerationRow(
        position=recorded.position,
        user_id=event.user_id,
        provider=event.provider,
        model=event.model,
        asked=None,
        status=_RUNNING,
        attempts=0,
        request_id=None,
        failure=None,
        created_at=at,
        updated_at=at,
        finished_at=None,
        outputs=(),
        storage_failed_at=None,
        migration=None,
    )


def _completed(row: GenerationRow, event: GenerationCompleted, recorded: Recorded) -> GenerationRow:
    outputs = tuple(
        OutputRow(
            output.source_url,
            output.expires_at,
            output.media_type,
            output.width,
            output.height,
            output.stored,
        )
        for output in event.outputs
    )
    return _finished(
        row,
        recorded,
        _COMPLETED,
        outputs=outputs,
        request_id=event.request_id or row.request_id,
    )


def _finished(
    row: GenerationRow,
    recorded: Recorded,
    status: Status,
    **changes: Any,  # noqa: ANN401 - fields of the row, of several types
) -> GenerationRow:
    return _changed(row, recorded, status=status, finished_at=recorded.envelope.time, **changes)


def _with_output(
    row: GenerationRow, recorded: Recorded, index: int, change: Callable[[OutputRow], OutputRow]
) -> GenerationRow:
    """Change one output, by index, unless it is stored already; the others are not touched."""
    if index >= len(row.outputs) or row.outputs[index].stored is not None:
        return row
    output = change(row.outputs[index])
    if output == row.outputs[index]:
        return row
    outputs = (*row.outputs[:index], output, *row.outputs[index + 1 :])
    return _changed(row, recorded, outputs=outputs)


def _without_object(row: GenerationRow, lost: ObjectLost, recorded: Recorded) -> GenerationRow:
    """Where the object that is gone is the one that was stored, the output is lost."""
    outputs = tuple(
        replace(output, stored=None, lost_reason=lost.reason.value)
        if index == lost.index and output.stored and output.stored.key == lost.object_key
        else output
        for index, output in enumerate(row.outputs)
    )
    if outputs == row.outputs:
        return row
    return _changed(row, recorded, outputs=outputs, migration=None)


def _relinked(
    row: GenerationRow, links: Sequence[RenewedLink], recorded: Recorded
) -> GenerationRow:
    """New links for some outputs, which may still be stored from them."""
    renewed = {link.index: link for link in links}
    outputs = tuple(
        replace(output, source_url=link.source_url, expires_at=link.expires_at, lost_reason=None)
        if (link := renewed.get(index)) is not None and output.stored is None
        else output
        for index, output in enumerate(row.outputs)
    )
    if outputs == row.outputs:
        return row
    return _changed(row, recorded, outputs=outputs)


def _changed(
    row: GenerationRow,
    recorded: Recorded,
    **changes: Any,  # noqa: ANN401 - fields of the row, of several types
) -> GenerationRow:
    return row._replace(position=recorded.position, updated_at=recorded.envelope.time, **changes)
