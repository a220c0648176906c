"""The bucket of a process that stays: probed, tidied, and its keys read again when told to."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog

from shared.object_store.port import StoreFailed
from shared.object_store.s3 import s3_object_store

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shared.object_store.s3 import S3ObjectStore
    from shared.object_store.settings import S3Settings

log = structlog.get_logger()

# Between two probes of a bucket that does not answer.
LEARN_AGAIN_S: Final = 30.0
# Between two sweeps, where uploads do not become stale sooner.
SWEEP_EVERY_S: Final = 3600.0
# One sweep; what it did not come to is the next one's.
_SWEEP_WITHIN_S: Final = 600.0


@contextlib.asynccontextmanager
async def attended_bucket(settings: S3Settings, *, sweeping: bool) -> AsyncGenerator[S3ObjectStore]:
    """The bucket that the settings name, which nothing here waits for.

    It is probed meanwhile, again and again until it answers, and puts go by what came of it;
    until then, as while it is away, they take nothing for granted. SIGHUP reads the files of keys
    again, where the settings name some.

    Args:
        settings: where it is.
        sweeping: whether uploads that a dead process left are ended, now and each hour.

    Raises:
        KeysUnreadable: the settings name files of keys, which hold none.
    """
    async with s3_object_store(settings) as store:
        hung_up = asyncio.Event()
        attending = [
            asyncio.create_task(_learn(store), name="probe the bucket"),
            asyncio.create_task(_reread(store, hung_up), name="reread the bucket's keys"),
        ]
        if sweeping:
            sweeper = _sweep(store, stale_after_s=settings.stale_upload_s)
            attending.append(asyncio.create_task(sweeper, name="sweep stale uploads"))
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, hung_up.set)
        try:
            yield store
        finally:
            loop.remove_signal_handler(signal.SIGHUP)
            for task in attending:
                task.cancel()
            await asyncio.wait(attending)


async def _learn(store: S3ObjectStore) -> None:
    while True:
        try:
            await store.learn()
        except StoreFailed as error:
            log.warning("bucket_not_probed", bucket=store.bucket, why=str(error))
        except Exception:  # an answer that nobody foresaw; puts do without a probe
            log.exception("bucket_probe_broke", bucket=store.bucket)
        else:
            return
        await asyncio.sleep(LEARN_AGAIN_S)


async def _reread(store: S3ObjectStore, hung_up: asyncio.Event) -> None:
    while True:
        await hung_up.wait()
        hung_up.clear()
        await store.reread_keys()


async def _sweep(store: S3ObjectStore, *, stale_after_s: float) -> None:
    while True:
        begun_before = datetime.now(UTC) - timedelta(seconds=stale_after_s)
        try:
            async with asyncio.timeout(_SWEEP_WITHIN_S):
                await store.sweep_stale_uploads(begun_before=begun_before)
        except (StoreFailed, TimeoutError) as error:
            log.warning("uploads_not_swept", bucket=store.bucket, why=str(error))
        except Exception:  # as above: what is left costs space and nothing else
            log.exception("upload_sweep_broke", bucket=store.bucket)
        await asyncio.sleep(min(SWEEP_EVERY_S, stale_after_s))
