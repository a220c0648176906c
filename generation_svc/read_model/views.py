"""Generations as their readers see them.

Where a stored object can be had is not said here: URLs are made by whoever answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from generation_svc.read_model.rows import Failure, OutputRow, Status, StorageState


@dataclass(frozen=True, slots=True)
class GenerationView:
    """One generation.

    Attributes:
        position: of the last event that changed it.
        input: None where another service made the media, as is `metadata`.
        outputs: by index. `stored` is where the copy is; before there is one, or where it is
            lost, `source_url` is all there is.
        earliest_link_death: of the links whose outputs may still be copied.
        total_migrated_size: bytes that were copied after the completion.
    """

    id: str
    position: int
    user_id: str
    provider: str
    model: str
    input: dict[str, Any] | None
    metadata: dict[str, Any] | None
    status: Status
    attempts: int
    request_id: str | None
    failure: Failure | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    outputs: tuple[OutputRow, ...]
    storage_state: StorageState
    storage_failed_at: datetime | None
    earliest_link_death: datetime | None
    storage_retry_needed: bool
    fal_urls_temporary: bool
    requires_background_migration: bool
    storage_successful: bool
    migration_completed_at: datetime | None
    total_migrated_size: int | None
    migration_file_count: int | None


@dataclass(frozen=True, slots=True)
class Page:
    """Generations, the newest first. `next_cursor` is None on the last page."""

    generations: tuple[GenerationView, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class NotStored:
    """Generations with a link that dies before its output is copied, by the time left.

    Attributes:
        dead: the first link should be dead already.
    """

    generations: int
    oldest_completed_at: datetime | None
    next_death_at: datetime | None
    dead: int
    within_10_minutes: int
    within_1_hour: int
    within_1_day: int
    later: int


@dataclass(frozen=True, slots=True)
class Stats:
    """What became of the generations asked for since a moment, and what is not stored at all.

    Attributes:
        storage_failed: could not be stored at once, whatever became of it later.
        lost: at least one output can never be stored.
    """

    since: datetime
    generations: int
    completed: int
    failed: int
    cancelled: int
    unfinished: int
    storage_failed: int
    stored: int
    lost: int
    not_stored: NotStored

    @property
    def success_rate(self) -> float | None:
        """Of what ended by itself, how much completed; None before anything did."""
        ended = self.completed + self.failed
        return self.completed / ended if ended else None

    @property
    def storage_failure_rate(self) -> float | None:
        """Of what completed, how much could not be stored at once; None before anything did."""
        return self.storage_failed / self.completed if self.completed else None
