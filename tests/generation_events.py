"""Events of one generation, short enough to write histories with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

from shared.contracts.facts import Output, OutputFailure, StoredObject
from shared.contracts.generation_events import (
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    GenerationRequested,
    GenerationSubmitted,
    StorageFailed,
    SubmissionStarted,
)
from shared.contracts.reasons import ReasonCode
from shared.contracts.storage_events import (
    MediaLost,
    MediaStored,
    MigrationAttemptFailed,
    MigrationCompleted,
)

Where = Literal["bucket", "link"]

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DIES_AT = NOON + timedelta(hours=1)

REQUESTED = GenerationRequested(
    user_id="ann", provider="fal", model="painter", input={"prompt": "a\0b"}, metadata={"p": 1}
)
STARTED = SubmissionStarted(attempt=1)
SUBMITTED = GenerationSubmitted(
    attempt=1, request_id="r", status_url="s", response_url="r", cancel_url="c"
)
FAILED = GenerationFailed(code="refused", detail="no", retryable=False, billed=True)
CANCELLED = GenerationCancelled()


def stored(index: int) -> StoredObject:
    return StoredObject(
        bucket="media",
        key=f"ann/g/{index}.png",
        size_bytes=10 + index,
        sha256="ab" * 32,
        media_type="image/png",
    )


def completed(*where: Where) -> GenerationCompleted:
    return GenerationCompleted(
        user_id="ann",
        provider="fal",
        model="painter",
        request_id="r",
        outputs=tuple(
            Output(
                index=index,
                source_url=f"https://media.example/{index}.png",
                expires_at=DIES_AT + timedelta(minutes=index),
                stored=stored(index) if place == "bucket" else None,
            )
            for index, place in enumerate(where)
        ),
    )


def storage_failed(*indexes: int) -> StorageFailed:
    return StorageFailed(
        failures=tuple(
            OutputFailure(index=index, reason=ReasonCode.BUCKET_UNAVAILABLE, detail="")
            for index in indexes
        )
    )


def media_stored(index: int) -> MediaStored:
    return MediaStored(index=index, attempt=1, object=stored(index), took_s=0.1)


def attempt_failed(index: int, attempt: int = 1) -> MigrationAttemptFailed:
    return MigrationAttemptFailed(
        index=index, attempt=attempt, reason=ReasonCode.TOO_SLOW, detail="", retry_at=NOON
    )


def media_lost(index: int) -> MediaLost:
    return MediaLost(index=index, attempt=3, reason=ReasonCode.SOURCE_EXPIRED, detail="")


def migrated(files: int) -> MigrationCompleted:
    return MigrationCompleted(file_count=files, total_size_bytes=21)
