"""From the link into the bucket and verified there: what both services copy with."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from shared.contracts.facts import StoredObject
from shared.contracts.reasons import ReasonCode
from shared.errors import in_words
from shared.media.copying import CopyFailed, CopyOrder
from shared.media.durations import duration_s
from shared.media.fetch import MediaFetcher, MediaSource
from shared.media.films import film
from shared.media.pictures import dimensions, dimensions_at_start
from shared.media.sniff import confirm
from shared.media.spool import Spool
from shared.object_store.keys import object_key
from shared.object_store.port import Held, ObjectStore, PutOrder, StoreFailed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shared.media.fetch import Spooled
    from shared.media.pictures import Dimensions
    from shared.media.settings import MediaSettings

# Each may hold 32 MiB for a moment.
_LOOKING_AT_ONCE: Final = 2


class MediaCopier:
    """Copies outputs; implements `shared.media.copying.Copier`."""

    def __init__(self, fetcher: MediaFetcher, store: ObjectStore) -> None:
        self._fetcher = fetcher
        self._store = store
        self._looking = asyncio.Semaphore(_LOOKING_AT_ONCE)

    async def copy(self, order: CopyOrder) -> StoredObject:
        """See `Copier.copy`."""
        try:
            return await self._copy(order)
        except StoreFailed as error:
            raise CopyFailed(error.reason, error.detail) from error
        except OSError as error:
            detail = f"the spool failed: {in_words(error)}"
            raise CopyFailed(ReasonCode.INTERNAL, detail) from error

    async def _copy(self, order: CopyOrder) -> StoredObject:
        left_s = (order.dies_at - datetime.now(UTC)).total_seconds()
        source = MediaSource(
            url=order.source_url,
            provider=order.provider,
            media_type=order.media_type,
            # A link that is promised to be dead by now may serve nevertheless: only asking tells.
            budget_s=left_s if left_s > 0 else None,
            as_is=order.as_is,
        )
        async with self._fetcher.fetched(source) as spooled:
            if (seen := _seen_at_once(spooled)) is None:
                async with self._looking:
                    seen = await asyncio.to_thread(_looked_at, spooled)
            put = _put_order(order, spooled)
            await self._store.put(put)
        return StoredObject(
            bucket=self._store.bucket,
            key=put.key,
            size_bytes=put.size_bytes,
            sha256=put.sha256,
            media_type=put.media_type,
            width=seen.size.width if seen.size else None,
            height=seen.size.height if seen.size else None,
            duration_s=seen.duration_s,
        )


@contextlib.asynccontextmanager
async def media_copier(settings: MediaSettings, store: ObjectStore) -> AsyncGenerator[MediaCopier]:
    """A copier with a spool and an HTTP client of its own, both gone at the end."""
    with Spool(settings.spool_dir, max_bytes=settings.spool_max_bytes) as spool:
        async with MediaFetcher(settings, spool) as fetcher:
            yield MediaCopier(fetcher, store)


@dataclass(frozen=True, slots=True)
class _Seen:
    size: Dimensions | None
    duration_s: float | None


def _seen_at_once(spooled: Spooled) -> _Seen | None:
    """What the beginning of a small picture tells of all of it; None where it does not."""
    if not isinstance(spooled.path, Held):
        return None
    size = dimensions_at_start(spooled.path, spooled.kind)
    return _Seen(size, None) if size is not None else None


def _looked_at(spooled: Spooled) -> _Seen:
    path, kind = spooled.path, spooled.kind
    confirm(path, kind)
    moving = film(path, kind)
    return _Seen(dimensions(path, kind) or moving.size, duration_s(path, kind) or moving.duration_s)


def _put_order(order: CopyOrder, spooled: Spooled) -> PutOrder:
    return PutOrder(
        key=object_key(
            order.user_id,
            order.generation_id,
            order.output_index,
            spooled.sha256,
            spooled.kind.extension,
        ),
        path=spooled.path,
        size_bytes=spooled.size_bytes,
        sha256=spooled.sha256,
        crc32s=spooled.crc32s,
        media_type=spooled.kind.media_type,
        # It is fetched again where the put fails.
        spent=True,
        metadata={
            "generation-id": order.generation_id,
            "output-index": str(order.output_index),
            "source-host": spooled.source_host,
            "stored-at": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )
