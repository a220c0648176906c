"""Which events a command makes of a state. The whole record keeping is this table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.contracts.events import (
    MediaLost,
    MediaStored,
    MigrationAttemptFailed,
    MigrationCompleted,
)
from shared.errors import Refused
from storage_svc.domain.commands import Command, RecordAttemptFailed, RecordLost, RecordStored
from storage_svc.domain.state import Absent, Kept, Lost, Missing, State, Stored

if TYPE_CHECKING:
    from shared.contracts.events import StorageEvent, StoredObject

_MAX_DETAIL = 2000  # what the contract of the events takes


class NothingToKeep(Refused):
    """The log has no completed generation with this output."""


def decide(command: Command, state: State) -> list[StorageEvent]:
    """What happened, given what was found out. An empty list: nothing new.

    Raises:
        NothingToKeep: the generation is not completed, or has no such output.
    """
    if isinstance(state, Absent):
        raise NothingToKeep("there is no completed generation with this id")
    output = state.outputs.get(command.index)
    match command, output:
        case _, None:
            raise NothingToKeep(f"the generation has no output {command.index}")

        case RecordStored(), Missing() | Lost():
            return _stored(command, state)  # bytes in the bucket outweigh having given up
        case RecordStored(), Stored():
            return []  # another worker was faster, with the same bytes under the same key

        case RecordAttemptFailed(attempt=attempt), Missing(attempts=known) if attempt > known:
            return [
                MigrationAttemptFailed(
                    index=command.index,
                    attempt=attempt,
                    reason=command.reason,
                    detail=command.detail[:_MAX_DETAIL],
                    retry_at=command.retry_at,
                )
            ]
        case RecordAttemptFailed(), Missing() | Stored() | Lost():
            return []  # recorded before, or settled since by somebody else

        case RecordLost(), Missing():
            return [
                MediaLost(
                    index=command.index,
                    attempt=command.attempt,
                    reason=command.reason,
                    detail=command.detail[:_MAX_DETAIL],
                )
            ]
        case RecordLost(), Stored() | Lost():
            return []  # what is stored cannot be lost, and is lost only once


def _stored(command: RecordStored, state: Kept) -> list[StorageEvent]:
    stored = MediaStored(
        index=command.index,
        attempt=command.attempt,
        object=command.object,
        took_s=command.took_s,
    )
    others = [output for index, output in state.outputs.items() if index != command.index]
    if state.migration_completed or not all(isinstance(output, Stored) for output in others):
        return [stored]
    return [stored, _completed([command.object, *_migrated(others)])]


def _migrated(outputs: list[Missing | Stored | Lost]) -> list[StoredObject]:
    # What was stored at once was never migrated, and is not counted as if it had been.
    return [
        output.object for output in outputs if isinstance(output, Stored) and not output.at_once
    ]


def _completed(migrated: list[StoredObject]) -> MigrationCompleted:
    return MigrationCompleted(
        file_count=len(migrated),
        total_size_bytes=sum(stored.size_bytes for stored in migrated),
    )
