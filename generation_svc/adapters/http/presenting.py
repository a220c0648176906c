"""A row of the read model as callers get it: with URLs, which are made now and stored nowhere."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from generation_svc.adapters.http.models import ErrorAnswer, GenerationAnswer, OutputAnswer
from generation_svc.adapters.http.ports import ObjectUrl

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from generation_svc.adapters.http.ports import ObjectUrls
    from generation_svc.read_model.rows import OutputRow
    from generation_svc.read_model.views import GenerationView
    from shared.contracts.facts import StoredObject


def object_urls(
    url_of: Callable[[StoredObject], Awaitable[str]],
    *,
    lifetime_s: float | None,
    clock: Callable[[], datetime],
) -> ObjectUrls:
    """URLs of an object store, which live for so long; None: as long as their objects."""

    async def made(stored: StoredObject) -> ObjectUrl:
        # The clock first: told to die a moment before it does, and never after.
        expires_at = clock() + timedelta(seconds=lifetime_s) if lifetime_s is not None else None
        return ObjectUrl(await url_of(stored), expires_at)

    return made


async def present(found: GenerationView, urls_of_objects: ObjectUrls) -> GenerationAnswer:
    """The whole generation."""
    outputs = [
        await _output(index, output, urls_of_objects) for index, output in enumerate(found.outputs)
    ]
    urls = [output.url for output in outputs]
    failure = found.failure
    return GenerationAnswer(
        id=found.id,
        user_id=found.user_id,
        status=found.status,
        storage_state=found.storage_state,
        provider=found.provider,
        model=found.model,
        input=found.input,
        outputs=outputs,
        output_urls=urls,
        media_url=urls[0] if urls else None,
        metadata={
            **(found.metadata or {}),
            "storage_retry_needed": found.storage_retry_needed,
            "fal_urls_temporary": found.fal_urls_temporary,
            "requires_background_migration": found.requires_background_migration,
            "storage_successful": found.storage_successful,
            "migration_completed_at": found.migration_completed_at,
            "total_migrated_size": found.total_migrated_size,
            "migration_file_count": found.migration_file_count,
        },
        error=(
            ErrorAnswer(
                code=failure.code,
                detail=failure.detail,
                retryable=failure.retryable,
                billed=failure.billed,
                given_up=failure.given_up,
            )
            if failure
            else None
        ),
        created_at=found.created_at,
        updated_at=found.updated_at,
        position=found.position,
    )


async def _output(index: int, output: OutputRow, urls_of_objects: ObjectUrls) -> OutputAnswer:
    stored = output.stored
    if stored is None:
        return OutputAnswer(
            index=index,
            url=output.source_url,
            expires_at=output.expires_at,
            stored=False,
            lost=output.lost_reason is not None,
            media_type=output.media_type,
            width=output.width,
            height=output.height,
            size_bytes=None,
            sha256=None,
            lost_reason=output.lost_reason,
            failure_reason=output.failure_reason,
        )
    place = await urls_of_objects(stored)
    return OutputAnswer(
        index=index,
        url=place.url,
        expires_at=place.expires_at,
        stored=True,
        lost=False,
        # What was found in the bytes, before what the provider said of them.
        media_type=stored.media_type,
        width=stored.width or output.width,
        height=stored.height or output.height,
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        lost_reason=None,
        failure_reason=None,
    )
