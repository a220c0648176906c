"""Version 1 of every event: what the two services, and any other, write to the log.

Strict and closed when they are made, so that nothing wrong is ever written; read tolerantly
(`shared.contracts.codec`), so that a newer writer's extra field stops no older reader. A new
field has a default. Any other change is a new version with an upcaster.
"""

from __future__ import annotations

from shared.contracts.generation_events import (
    GenerationCancelled,
    GenerationCompleted,
    GenerationEvent,
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
    StorageEvent,
)

AnyEvent = GenerationEvent | StorageEvent

EVENT_TYPES: tuple[type[AnyEvent], ...] = (
    GenerationRequested,
    SubmissionStarted,
    GenerationSubmitted,
    GenerationCompleted,
    StorageFailed,
    GenerationFailed,
    GenerationCancelled,
    LinksRenewed,
    LinksNotRenewed,
    SourcesDeleted,
    MediaStored,
    MigrationAttemptFailed,
    MigrationCompleted,
    MediaLost,
    ObjectLost,
    QuarantineReleased,
    QuarantineRejected,
    RefetchRequested,
)
