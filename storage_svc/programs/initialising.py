"""Making what is missing, before anything is served."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from shared.errors import Refused, VelroError
from shared.object_store.s3 import s3_object_store
from storage_svc.composition import Service

if TYPE_CHECKING:
    from storage_svc.settings import CopySettings, StorageSettings

_log = structlog.get_logger(__name__)

_INIT_DEADLINE_S: Final = 60.0


async def init(settings: StorageSettings, copying: CopySettings) -> None:
    """See that the log, the tables and the bucket are there, waiting for servers that start.

    Raises:
        VelroError: what is missing, when the time is over.
    """
    give_up_at = asyncio.get_running_loop().time() + _INIT_DEADLINE_S
    while True:
        try:
            return await _looked_at_all(settings, copying)
        except Refused:
            raise
        except VelroError as error:
            if asyncio.get_running_loop().time() > give_up_at:
                raise
            _log.info("waiting", reason=str(error))
            await asyncio.sleep(1.0)


async def _looked_at_all(settings: StorageSettings, copying: CopySettings) -> None:
    async with Service.assembled(settings) as service, service.projecting():
        await service.level()
    async with s3_object_store(copying.bucket) as bucket:
        # Listing finds a missing bucket and refused credentials, and changes nothing.
        await anext(bucket.keys(prefix="velro-init/"), None)
