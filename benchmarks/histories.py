"""Histories as a busy installation writes them: many generations at once, storage failing at times.

Deterministic, so that two runs measure the same bytes.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import islice
from typing import TYPE_CHECKING

from shared.contracts.envelope import Context, seal
from shared.contracts.facts import Output, OutputFailure, StoredObject
from shared.contracts.generation_events import (
    GenerationCompleted,
    GenerationFailed,
    GenerationRequested,
    GenerationSubmitted,
    StorageFailed,
    SubmissionStarted,
)
from shared.contracts.reasons import ReasonCode
from shared.contracts.storage_events import MediaStored, MigrationAttemptFailed, MigrationCompleted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.contracts.envelope import Envelope
    from shared.contracts.events import AnyEvent

_START = datetime(2026, 1, 1, tzinfo=UTC)
_USERS = 500
_HOST = "https://v3.fal.media/files"
_PHRASES = (
    "a lighthouse in a storm",
    "oil on canvas",
    "dramatic light",
    "seen from a small boat",
    "waves as high as houses",
    "gulls over a red lantern",
    "wide angle, in the evening",
)


def events(count: int, *, seed: int = 1, starts_per_s: float = 50.0) -> Iterator[Envelope]:
    """The first `count` events in the order in which the log would hold them.

    Per 100 generations: 97 complete and 3 fail; 1 to 4 outputs each; 30 could not be stored at
    once and are copied one to ten minutes later, one copy in five at the second attempt. With 50
    starting a second, some hundreds are under way at any moment, and what storage says comes
    thousands of events after the completion.
    """
    return islice(_merged(random.Random(seed), starts_per_s), count)  # noqa: S311 - a workload


def _merged(rng: random.Random, starts_per_s: float) -> Iterator[Envelope]:
    coming: list[tuple[float, int, str, AnyEvent]] = []
    number = turn = 0
    while True:
        starts_at = number / starts_per_s
        while coming and coming[0][0] <= starts_at:
            at_s, _, generation_id, event = heappop(coming)
            at = _START + timedelta(seconds=at_s)
            yield seal(event, generation_id=generation_id, at=at, context=_context(generation_id))
        generation_id = f"gen_{rng.getrandbits(100):025x}"
        for at_s, event in _history(rng, generation_id, starts_at):
            turn += 1
            heappush(coming, (at_s, turn, generation_id, event))
        number += 1


def _context(generation_id: str) -> Context:
    return Context(source="velro/generation", correlation_id=generation_id)


def _history(
    rng: random.Random, generation_id: str, at_s: float
) -> Iterator[tuple[float, AnyEvent]]:
    user_id = f"user_{rng.randrange(_USERS)}"
    request_id = f"{rng.getrandbits(128):032x}"
    queue = f"https://queue.fal.run/fal-ai/flux/requests/{request_id}"
    yield (
        at_s,
        GenerationRequested(
            user_id=user_id,
            provider="fal",
            model="fal-ai/flux/dev",
            input={
                "prompt": ", ".join(rng.choices(_PHRASES, k=5)),
                "seed": rng.randrange(1 << 31),
                "num_images": 2,
                "image_size": {"width": 1024, "height": 768},
            },
            metadata={"project": f"p{rng.randrange(40)}"},
        ),
    )
    yield at_s + 0.01, SubmissionStarted(attempt=1)
    yield (
        at_s + 0.3,
        GenerationSubmitted(
            attempt=1,
            request_id=request_id,
            status_url=f"{queue}/status",
            response_url=queue,
            cancel_url=f"{queue}/cancel",
        ),
    )
    at_s += rng.uniform(2, 12)
    if rng.random() < 0.03:
        yield (
            at_s,
            GenerationFailed(
                code="content_policy_violation", detail="refused", retryable=False, billed=False
            ),
        )
        return
    indexes = range(rng.choice((1, 1, 1, 2, 4)))
    stored_at_once = rng.random() < 0.7
    yield (
        at_s,
        GenerationCompleted(
            user_id=user_id,
            provider="fal",
            model="fal-ai/flux/dev",
            request_id=request_id,
            outputs=tuple(
                Output(
                    index=index,
                    source_url=f"{_HOST}/{generation_id}/{index}.png",
                    expires_at=_START + timedelta(seconds=round(at_s) + 3600),
                    media_type="image/png",
                    width=1024,
                    height=768,
                    stored=_object(rng, user_id, generation_id, index) if stored_at_once else None,
                )
                for index in indexes
            ),
        ),
    )
    if stored_at_once:
        return
    yield (
        at_s + 0.01,
        StorageFailed(
            failures=tuple(
                OutputFailure(
                    index=index,
                    reason=ReasonCode.BUCKET_UNAVAILABLE,
                    detail="the bucket did not answer within 5 s",
                )
                for index in indexes
            )
        ),
    )
    size_bytes = 0
    for index in indexes:
        at_s += rng.uniform(60, 600) / len(indexes)
        attempt = 1
        if rng.random() < 0.2:
            yield (
                at_s,
                MigrationAttemptFailed(
                    index=index,
                    attempt=1,
                    reason=ReasonCode.SOURCE_UNAVAILABLE,
                    detail="the source answered 503",
                    retry_at=_START + timedelta(seconds=round(at_s) + 30),
                ),
            )
            at_s += 31
            attempt = 2
        stored = _object(rng, user_id, generation_id, index)
        size_bytes += stored.size_bytes
        yield at_s, MediaStored(index=index, attempt=attempt, object=stored, took_s=0.4)
    yield at_s, MigrationCompleted(file_count=len(indexes), total_size_bytes=size_bytes)


def _object(rng: random.Random, user_id: str, generation_id: str, index: int) -> StoredObject:
    digest = f"{rng.getrandbits(256):064x}"
    return StoredObject(
        bucket="media",
        key=f"{user_id}/{generation_id}/{index}-{digest[:16]}.png",
        size_bytes=rng.randrange(200_000, 4_000_000),
        sha256=digest,
        media_type="image/png",
        width=1024,
        height=768,
    )
