"""From the link into the bucket and verified there: what both services copy with."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from shared.contracts.events import StoredObject
from shared.contracts.reasons import ReasonCode
from shared.media.copying import CopyFailed, CopyOrder
from shared.media.fetch import MediaFetcher
from shared.media.sniff import dimensions, sniff
from shared.media.spool import Spool
from shared.object_store.keys import object_key
from shared.object_store.port import ObjectStore, PutOrder, StoreFailed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shared.media.settings import MediaSettings


class MediaCopier:
    """Copies outputs; implements `shared.media.copying.Copier`."""

    def __init__(self, fetcher: MediaFetcher, store: ObjectStore) -> None:
        self._fetcher = fetcher
        self._store = store

    async def copy(self, order: CopyOrder) -> StoredObject:
        """See `Copier.copy`."""
        try:
            return await self._copy(order)
        except StoreFailed as error:
            raise CopyFailed(error.reason, error.detail) from error
        except OSError as error:
            detail = f"the spool failed: {type(error).__name__}: {error}"
            raise CopyFailed(ReasonCode.INTERNAL, detail) from error

    async def _copy(self, order: CopyOrder) -> StoredObject:
        async with self._fetcher.fetched(order.source_url, provider=order.provider) as fetched:
            kind = sniff(fetched.path, announced=order.media_type)
            size = dimensions(fetched.path, kind)
            put = PutOrder(
                key=object_key(
                    order.user_id,
                    order.generation_id,
                    order.output_index,
                    fetched.sha256,
                    kind.extension,
                ),
                path=fetched.path,
                size_bytes=fetched.size_bytes,
                sha256=fetched.sha256,
                media_type=kind.media_type,
                metadata={
                    "generation-id": order.generation_id,
                    "output-index": str(order.output_index),
                    "source-host": fetched.source_host,
                },
            )
            await self._store.put(put)
        return StoredObject(
            bucket=self._store.bucket,
            key=put.key,
            size_bytes=put.size_bytes,
            sha256=put.sha256,
            media_type=put.media_type,
            width=size.width if size else None,
            height=size.height if size else None,
        )


@contextlib.asynccontextmanager
async def media_copier(settings: MediaSettings, store: ObjectStore) -> AsyncGenerator[MediaCopier]:
    """A copier with a spool and an HTTP client of its own, both gone at the end."""
    with Spool(settings.spool_dir, max_bytes=settings.spool_max_bytes) as spool:
        async with MediaFetcher(settings, spool) as fetcher:
            yield MediaCopier(fetcher, store)
