"""What a row of the generation read model holds, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - pydantic reads the annotations when it runs
from enum import StrEnum
from typing import Final, NamedTuple

from shared.contracts.facts import StoredObject  # noqa: TC001 - pydantic reads the annotations when it runs


class Status(StrEnum):
    """How far a generation is. What storage does never changes it."""

    REQUESTED = "requested"
    SUBMITTING = "submitting"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to wait for."""
        return self in _FINISHED


# Compared one after the other by identity: to hash a member is a call in Python.
_FINISHED = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)


class StorageState(StrEnum):
    """Where the outputs of a generation are."""

    NONE = "none"
    """There are no outputs, or not yet."""

    TEMPORARY = "temporary"
    """No output is stored; all links may still live."""

    PARTIAL = "partial"
    """Some outputs are stored, the others may still be."""

    STORED = "stored"
    """Every output is in the bucket."""

    LOST = "lost"
    """An output can never be stored; others may be."""


_STORED: Final = StorageState.STORED


@dataclass(frozen=True, slots=True)
class OutputRow:
    """One output: where it came from, and where it is or why not.

    Attributes:
        stored: where the copy is.
        lost_reason: why there will never be a copy; the link is kept all the same.
        failure_reason: why the last attempt to copy it failed; None once it is stored.
    """

    source_url: str
    expires_at: datetime
    media_type: str | None = None
    width: int | None = None
    height: int | None = None
    stored: StoredObject | None = None
    lost_reason: str | None = None
    failure_reason: str | None = None

    def kept(self, stored: StoredObject) -> OutputRow:
        """The same, in the bucket: nothing is wrong with it any more."""
        return OutputRow(
            self.source_url, self.expires_at, self.media_type, self.width, self.height, stored
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the provider made nothing; or was `given_up` on, and may still complete it."""

    code: str
    detail: str
    retryable: bool
    billed: bool | None
    given_up: bool = False


@dataclass(frozen=True, slots=True)
class Migration:
    """When the last output was copied afterwards, and what was copied afterwards altogether."""

    completed_at: datetime
    total_size_bytes: int
    file_count: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What never changes: who asked for what, as JSON texts. None where nobody asked us."""

    input: str
    metadata: str


class GenerationRow(NamedTuple):
    """One generation as its events add up. Everything else in the table follows from this.

    A named tuple, because it is made anew with every event: 1 us where a frozen dataclass takes 5.

    Attributes:
        position: of the last event that changed the row.
        asked: None too in a row that was loaded: the table has it, and it is not written again.
        attempts: paid calls that were announced.
        storage_failed_at: when it was said that the copy could not be made at once.
    """

    position: int
    user_id: str
    provider: str
    model: str
    asked: Asked | None
    status: Status
    attempts: int
    request_id: str | None
    failure: Failure | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    outputs: tuple[OutputRow, ...]
    storage_failed_at: datetime | None
    migration: Migration | None

    @property
    def all_stored(self) -> bool:
        """Whether there are outputs, and all of them are in the bucket."""
        return self.storage_state is _STORED

    @property
    def storage_state(self) -> StorageState:
        """Where the outputs are, taken together."""
        stored = lost = 0
        for output in self.outputs:
            if output.stored is not None:
                stored += 1
            elif output.lost_reason is not None:
                lost += 1
        if lost:
            return StorageState.LOST
        if stored == len(self.outputs):
            return _STORED if stored else StorageState.NONE
        return StorageState.PARTIAL if stored else StorageState.TEMPORARY

    @property
    def earliest_link_death(self) -> datetime | None:
        """When the first link dies of an output that can still be copied."""
        open_until = [
            output.expires_at
            for output in self.outputs
            if output.stored is None and output.lost_reason is None
        ]
        return min(open_until) if open_until else None
