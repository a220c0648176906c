"""Large files in parts: sent in parallel, and completed or aborted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
from botocore.exceptions import ClientError

from shared.object_store.failures import NOT_FOUND, status_of, within
from shared.object_store.file_part import FilePart
from shared.object_store.keys import is_object_key
from shared.object_store.port import StoreFailed
from shared.object_store.probe import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from types_aiobotocore_s3 import S3Client
    from types_aiobotocore_s3.type_defs import CompletedPartTypeDef, UploadPartRequestTypeDef

    from shared.object_store.port import PutOrder
    from shared.object_store.settings import S3Settings

log = structlog.get_logger()

# The same for every part but the last: R2 refuses others. 10,000 parts make 156 GiB.
PART_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Description:
    """What is written beside an object."""

    media_type: str
    disposition: str
    cache_control: str
    metadata: dict[str, str]


class Uploads:
    """Uploads in parts to one bucket, with a bound on the parts of all of them together."""

    def __init__(self, settings: S3Settings) -> None:
        self._bucket = settings.bucket
        self._timeout_s = settings.timeout_s
        self._pace = settings.min_bytes_per_s
        self._parts_at_once = settings.parts_at_once
        self._places = asyncio.Semaphore(settings.parts_at_once)
        self._under_way: set[str] = set()
        self._aborting: set[asyncio.Task[None]] = set()

    async def put(
        self,
        client: S3Client,
        order: PutOrder,
        described: Description,
        *,
        with_md5: bool,
    ) -> None:
        """Send a file in parts. What is not completed is aborted, when cancelled too.

        Raises:
            StoreFailed: with the reason.
        """
        async with within(self._timeout_s):
            begun = await client.create_multipart_upload(
                Bucket=self._bucket,
                Key=order.key,
                ContentType=described.media_type,
                ContentDisposition=described.disposition,
                CacheControl=described.cache_control,
                Metadata=described.metadata,
            )
        upload_id = begun["UploadId"]
        self._under_way.add(upload_id)
        completed = False
        try:
            parts = await self._send(client, order, upload_id, with_md5=with_md5)
            async with within(self._timeout_s + len(parts)):
                await client.complete_multipart_upload(
                    Bucket=self._bucket,
                    Key=order.key,
                    UploadId=upload_id,
                    MultipartUpload={"Parts": parts},
                )
            completed = True
        finally:
            if not completed:
                await self._abort_whatever_comes(client, order.key, upload_id)
            self._under_way.discard(upload_id)

    async def sweep(self, client: S3Client, *, before: datetime) -> int:
        """Abort our own uploads that began before a moment; how many.

        What a killed process left: its parts cost space and are seen by no listing of objects.
        A key that we would not give an object is somebody else's upload. No more is kept in
        memory than one page of them.

        Raises:
            StoreFailed: the bucket gave no answer.
        """
        swept = 0
        pages = aiter(client.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket))
        while True:
            async with within(self._timeout_s):
                page = await anext(pages, None)
            if page is None:
                return swept
            for upload in page.get("Uploads", []):
                key, upload_id = upload.get("Key", ""), upload.get("UploadId", "")
                begun = upload.get("Initiated")
                ours = is_object_key(key) or key.startswith(f"{PREFIX}/")
                if not ours or upload_id in self._under_way or begun is None or begun >= before:
                    continue
                swept += await self._swept(client, key, upload_id)

    async def _swept(self, client: S3Client, key: str, upload_id: str) -> bool:
        async with within(self._timeout_s):
            try:
                await client.abort_multipart_upload(
                    Bucket=self._bucket, Key=key, UploadId=upload_id
                )
            except ClientError as error:
                if status_of(error) == NOT_FOUND:
                    return False  # another process swept it
                raise
        log.info("upload_swept", key=key, upload_id=upload_id)
        return True

    async def close(self) -> None:
        """Wait for what is being aborted; each is bounded in time."""
        if self._aborting:
            await asyncio.wait(self._aborting)

    async def _send(
        self, client: S3Client, order: PutOrder, upload_id: str, *, with_md5: bool
    ) -> list[CompletedPartTypeDef]:
        count = -(-order.size_bytes // PART_BYTES)
        numbers = iter(range(1, count + 1))
        sent: dict[int, str] = {}

        async def work(numbers: Iterator[int]) -> None:
            for number in numbers:
                sent[number] = await self._send_part(
                    client, order, upload_id, number, with_md5=with_md5
                )

        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(self._parts_at_once, count)):
                    workers.create_task(work(numbers))
        except* StoreFailed as group:
            # Several parts fail alike; the first says it all.
            failed = _first(group)
            raise failed from failed.__cause__
        return [{"PartNumber": number, "ETag": sent[number]} for number in sorted(sent)]

    async def _send_part(
        self,
        client: S3Client,
        order: PutOrder,
        upload_id: str,
        number: int,
        *,
        with_md5: bool,
    ) -> str:
        offset = (number - 1) * PART_BYTES
        size = min(PART_BYTES, order.size_bytes - offset)
        with FilePart(order.path, offset=offset, size_bytes=size) as body:
            async with self._places, within(self._timeout_s + size / self._pace):
                request: UploadPartRequestTypeDef = {
                    "Bucket": self._bucket,
                    "Key": order.key,
                    "UploadId": upload_id,
                    "PartNumber": number,
                    "Body": body.as_body(),
                    "ContentLength": size,
                }
                if with_md5:  # the hash of the whole says nothing of a part
                    request["ContentMD5"] = await asyncio.to_thread(body.md5)
                answer = await client.upload_part(**request)
        return answer["ETag"]

    async def _abort_whatever_comes(self, client: S3Client, key: str, upload_id: str) -> None:
        # A task of its own, so that a second cancellation does not leave the upload behind.
        aborting = asyncio.create_task(self._abort(client, key, upload_id))
        self._aborting.add(aborting)
        aborting.add_done_callback(self._aborting.discard)
        await asyncio.shield(aborting)

    async def _abort(self, client: S3Client, key: str, upload_id: str) -> None:
        try:
            async with within(self._timeout_s):
                await client.abort_multipart_upload(
                    Bucket=self._bucket, Key=key, UploadId=upload_id
                )
        except StoreFailed as error:
            # Its parts cost space until they are swept; the failure that led here is what counts.
            log.warning("upload_not_aborted", key=key, upload_id=upload_id, why=error.detail)


def _first(group: BaseExceptionGroup[StoreFailed]) -> StoreFailed:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
