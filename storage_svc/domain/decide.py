"""Which events a command makes of a state. The whole record keeping is this table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.contracts.reasons import ReasonCode
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
from shared.errors import Refused
from storage_svc.domain.commands import (
    AskForLink,
    Command,
    EndWaiting,
    RecordAttemptFailed,
    RecordLost,
    RecordObjectLost,
    RecordStored,
    RejectQuarantined,
    ReleaseQuarantined,
)
from storage_svc.domain.state import Absent, AwaitingLink, Kept, Lost, Missing, Past, State, Stored

if TYPE_CHECKING:
    from datetime import datetime

    from shared.contracts.facts import StoredObject
    from shared.contracts.storage_events import StorageEvent
    from storage_svc.domain.state import OutputState

_MAX_DETAIL = 2000  # what the contract of the events takes


class NothingToKeep(Refused):
    """The log has no completed generation with this output."""


class NotQuarantined(Refused):
    """The output is not in quarantine, so that there is nothing to release or to reject."""


# One table, read from top to bottom: split up, nobody could see that it covers everything.
def decide(command: Command, state: State) -> list[StorageEvent]:  # noqa: C901, PLR0911, PLR0912
    """What happened, given what was found out. An empty list: nothing new.

    Raises:
        NothingToKeep: the generation is not completed, or has no such output.
        NotQuarantined: a person's word about an output that waits for none.
    """
    if isinstance(state, Absent):
        raise NothingToKeep("there is no completed generation with this id")
    output = state.outputs.get(command.index)
    match command, output:
        case _, None:
            raise NothingToKeep(f"the generation has no output {command.index}")

        case RecordStored(), Missing() | AwaitingLink() | Lost():
            return _stored(command, state)  # bytes in the bucket outweigh having given up
        case RecordStored(), Stored():
            return []  # another worker was faster, with the same bytes under the same key

        case RecordAttemptFailed(), Missing(past=past) | Lost(past=past, rejected=None) if (
            command.attempt > past.attempts
        ):
            return [_failed(command, command.retry_at)]
        case RecordAttemptFailed(), Missing() | AwaitingLink() | Lost() | Stored():
            return []  # recorded before, or settled since by somebody else

        case RecordLost(), Missing(past=past) | Lost(past=past, rejected=None) if _is_news(
            command, past
        ):
            return [_lost(command, past)]
        case RecordLost(), Missing() | AwaitingLink() | Lost() | Stored():
            return []  # recorded before, settled since, or about a link that has been replaced

        case AskForLink(), Missing(past=past) | Lost(past=past, rejected=None) if _is_news(
            command, past
        ):
            asked = RefetchRequested(
                request=state.last_request + 1,
                indexes=(command.index,),
                answer_by=command.answer_by,
            )
            return [_failed(command, command.answer_by), asked]
        case AskForLink(), Missing() | AwaitingLink() | Lost() | Stored():
            return []

        case EndWaiting(at=at), AwaitingLink(past=past, refusal=refusal):
            if refusal is None and at < output.answer_by:
                return []
            why = refusal or f"none came by {output.answer_by:%Y-%m-%d %H:%M:%S} UTC"
            detail = f"{output.detail}; no new link: {why}"
            return [_lost(RecordLost(command.index, past.attempts, output.reason, detail), past)]
        case EndWaiting(), Missing() | Lost() | Stored():
            return []  # a new link came, or somebody else ended it

        case RecordObjectLost(object_key=key), Stored(past=Past() as past) if (
            output.object.key == key
        ):
            return [_object_lost(command, past)]
        case RecordObjectLost(), Missing() | AwaitingLink() | Lost() | Stored():
            return []  # said before, or stored anew since

        case ReleaseQuarantined(), Lost(past=past) if is_quarantined(output):
            return [QuarantineReleased(index=command.index, attempt=past.attempts)]
        case ReleaseQuarantined(), Missing(past=past) | AwaitingLink(past=past) if past.as_is:
            return []
        case RejectQuarantined(), Lost(past=past) if is_quarantined(output):
            why = command.why[:_MAX_DETAIL]
            return [QuarantineRejected(index=command.index, attempt=past.attempts, detail=why)]
        case RejectQuarantined(), Lost(rejected=str()):
            return []
        case (
            (ReleaseQuarantined() | RejectQuarantined()),
            (Missing() | AwaitingLink() | Lost() | Stored()),
        ):
            raise NotQuarantined(f"output {command.index} {_described(output)}")


def is_quarantined(output: OutputState) -> bool:
    """Whether a person should look at it: there were bytes, and they are no media."""
    match output:
        case Lost(reason=ReasonCode.MEDIA_TYPE_REFUSED, rejected=None):
            return True
        case _:
            return False


def _is_news(command: RecordLost | AskForLink, past: Past) -> bool:
    """Whether this attempt is a new one, on the newest link."""
    return command.attempt > past.attempts and command.link == past.link.request


def _failed(
    command: RecordAttemptFailed | AskForLink, retry_at: datetime
) -> MigrationAttemptFailed:
    return MigrationAttemptFailed(
        index=command.index,
        attempt=command.attempt,
        reason=command.reason,
        detail=command.detail[:_MAX_DETAIL],
        retry_at=retry_at,
    )


def _lost(command: RecordLost, past: Past) -> MediaLost:
    return MediaLost(
        index=command.index,
        attempt=command.attempt,
        reason=command.reason,
        detail=command.detail[:_MAX_DETAIL],
        media_type=command.media_type,
        link=past.link.request or None,
        loss=past.losses + 1 if past.losses else None,
    )


def _object_lost(command: RecordObjectLost, past: Past) -> ObjectLost:
    return ObjectLost(
        index=command.index,
        object_key=command.object_key,
        loss=past.vanished + 1,
        reason=command.reason,
        detail=command.detail[:_MAX_DETAIL],
    )


def _stored(command: RecordStored, state: Kept) -> list[StorageEvent]:
    before = state.outputs[command.index].past
    stored = MediaStored(
        index=command.index,
        attempt=command.attempt,
        object=command.object,
        took_s=command.took_s,
        again=before.vanished + 1 if before and before.vanished else None,
    )
    others = [output for index, output in state.outputs.items() if index != command.index]
    if state.migration_completed or not all(isinstance(output, Stored) for output in others):
        return [stored]
    return [stored, _completed([command.object, *_migrated(others)])]


def _migrated(outputs: list[OutputState]) -> list[StoredObject]:
    # What was stored at once was never migrated, and is not counted as if it had been.
    return [
        output.object for output in outputs if isinstance(output, Stored) and not output.at_once
    ]


def _completed(migrated: list[StoredObject]) -> MigrationCompleted:
    return MigrationCompleted(
        file_count=len(migrated),
        total_size_bytes=sum(stored.size_bytes for stored in migrated),
    )


def _described(output: OutputState) -> str:
    match output:
        case Stored():
            return "is not in quarantine: it is stored"
        case Missing() | AwaitingLink():
            return "is not in quarantine: it waits to be copied"
        case Lost(rejected=str() as why):
            return f"was rejected for good: {why}"
        case Lost(reason=reason):
            return (
                f"is not in quarantine: it was given up on for {reason}. "
                "`storage-svc retry` tries it again"
            )
