"""Making what is missing, before anything is served."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from shared.errors import Refused, VelroError
from shared.object_store.port import BucketRefused
from shared.object_store.s3 import s3_object_store
from shared.program import STARTING_S, when_ready
from storage_svc.composition import Service

if TYPE_CHECKING:
    from storage_svc.settings import CopySettings, StorageSettings


async def init(settings: StorageSettings, copying: CopySettings) -> None:
    """See that the bucket, the log and the tables are there, waiting for servers that start.

    Raises:
        VelroError: what is missing, when the time is over.
    """
    await when_ready(partial(_looked_at_bucket, copying), patience_s=_patience_s)
    await when_ready(partial(_log_and_tables, settings), patience_s=_patience_s)


async def _looked_at_bucket(copying: CopySettings) -> None:
    async with s3_object_store(copying.bucket) as bucket:
        # Listing finds a missing bucket and refused credentials, and changes nothing.
        await anext(bucket.keys(prefix="velro-init/"), None)


async def _log_and_tables(settings: StorageSettings) -> None:
    async with Service.assembled(settings) as service, service.projecting():
        await service.level()


def _patience_s(error: Exception) -> float:
    match error:
        case Refused():
            return 0.0
        case BucketRefused():
            # A service that has just started may answer so for a moment.
            return 10.0
        case VelroError():
            return STARTING_S
        case _:
            return 0.0
