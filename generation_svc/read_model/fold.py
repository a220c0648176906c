"""What a generation's row becomes with each event, of both services, in the log's order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic_core import to_json

from generation_svc.read_model.rows import (
    Asked,
    Failure,
    GenerationRow,
    Migration,
    OutputRow,
    Status,
    StorageState,
)
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

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from shared.contracts.envelope import Recorded
    from shared.contracts.events import RenewedLink


# One table, read from top to bottom: split up, nobody could see that it covers everything.
def evolve(row: GenerationRow | None, recorded: Recorded) -> GenerationRow | None:  # noqa: C901, PLR0911, PLR0912
    """The row after one event; the same object where the event changes nothing."""
    event = recorded.envelope.data
    match event, row:
        case GenerationRequested(), None:
            return _requested(event, recorded)
        case SubmissionStarted(), GenerationRow(status=Status.REQUESTED | Status.SUBMITTING):
            return _changed(row, recorded, status=Status.SUBMITTING, attempts=event.attempt)
        case GenerationSubmitted(), GenerationRow(status=Status.REQUESTED | Status.SUBMITTING):
            return _changed(
                row,
                recorded,
                status=Status.RUNNING,
                attempts=event.attempt,
                request_id=event.request_id,
            )

        case GenerationCompleted(), None:
            return _completed(_made_elsewhere(event, recorded), event, recorded)
        case GenerationCompleted(), GenerationRow() if not row.status.finished:
            return _completed(row, event, recorded)
        case GenerationCompleted(), GenerationRow(failure=Failure(given_up=True)):
            return _completed(row._replace(failure=None), event, recorded)
        case GenerationFailed(), GenerationRow() if not row.status.finished:
            failure = Failure(
                event.code, event.detail, event.retryable, event.billed, bool(event.given_up)
            )
            return _finished(row, recorded, Status.FAILED, failure=failure)
        case GenerationCancelled(), GenerationRow() if not row.status.finished:
            return _finished(row, recorded, Status.CANCELLED)

        case StorageFailed(), GenerationRow(status=Status.COMPLETED, storage_failed_at=None):
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
        case MediaStored(index=index, object=stored), GenerationRow():
            return _with_output(
                row,
                recorded,
                index,
                lambda output: replace(
                    output, stored=stored, lost_reason=None, failure_reason=None
                ),
            )
        case MigrationAttemptFailed(index=index, reason=reason), GenerationRow():
            # Also after a loss: a person tried again, and so will the service.
            return _with_output(
                row,
                recorded,
                index,
                lambda output: replace(output, failure_reason=reason.value, lost_reason=None),
            )
        case QuarantineReleased(index=index), GenerationRow():
            return _with_output(
                row, recorded, index, lambda output: replace(output, lost_reason=None)
            )
        case LinksRenewed(links=links), GenerationRow():
            return _relinked(row, links, recorded)
        case MediaLost(index=index, reason=reason), GenerationRow():
            return _with_output(
                row,
                recorded,
                index,
                lambda output: replace(output, lost_reason=output.lost_reason or reason.value),
            )
        case ObjectLost() as lost, GenerationRow():
            return _without_object(row, lost, recorded)
        case MigrationCompleted(), GenerationRow(storage_state=StorageState.STORED, migration=None):
            migration = Migration(recorded.envelope.time, event.total_size_bytes, event.file_count)
            return _changed(row, recorded, migration=migration)

        case (
            (
                GenerationRequested()
                | SubmissionStarted()
                | GenerationSubmitted()
                | GenerationCompleted()
                | GenerationFailed()
                | GenerationCancelled()
                | StorageFailed()
                | MediaStored()
                | MigrationAttemptFailed()
                | MediaLost()
                | ObjectLost()
                | MigrationCompleted()
                | QuarantineReleased()
                | LinksRenewed()
            ),
            _,
        ):
            return row  # said before, or about a generation that is elsewhere by now
        case (
            (
                QuarantineRejected()
                | RefetchRequested()
                | LinksNotRenewed()
                | SourcesDeleted()
                | UnknownEvent()
            ),
            _,
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
        status=Status.REQUESTED,
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
        status=Status.RUNNING,
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
        Status.COMPLETED,
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
