"""Large files in parts: sent in parallel, and completed or aborted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import structlog
from botocore.exceptions import ClientError

from shared.object_store.capabilities import BodyCheck
from shared.object_store.checksums import ALGORITHMS, HEADERS, as_header, crc32_digest
from shared.object_store.failures import NOT_FOUND, status_of, within
from shared.object_store.file_part import FilePart, SpentFile
from shared.object_store.keys import is_object_key
from shared.object_store.port import Held, StoreFailed
from shared.object_store.probe import PREFIX
from shared.object_store.wire import UNSIGNED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from types_aiobotocore_s3 import S3Client
    from types_aiobotocore_s3.type_defs import (
        CompletedPartTypeDef,
        CreateMultipartUploadRequestTypeDef,
    )

    from shared.object_store.port import PutOrder
    from shared.object_store.settings import S3Settings
    from shared.object_store.wire import Wire

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

    def headers(self) -> dict[str, str]:
        """As they stand in a request."""
        said = {f"x-amz-meta-{name}": _as_ascii(text) for name, text in self.metadata.items()}
        return said | {
            "Content-Type": self.media_type,
            "Content-Disposition": self.disposition,
            "Cache-Control": self.cache_control,
        }


class Uploads:
    """Uploads in parts to one bucket, with a bound on the parts of all of them together."""

    def __init__(self, client: S3Client, wire: Wire, settings: S3Settings) -> None:
        self._client = client
        self._wire = wire
        self._bucket = settings.bucket
        self._timeout_s = settings.timeout_s
        self._pace = settings.min_bytes_per_s
        self._parts_at_once = settings.parts_at_once
        self._places = asyncio.Semaphore(settings.parts_at_once)
        self._under_way: set[str] = set()
        self._aborting: set[asyncio.Task[None]] = set()

    async def put(self, order: PutOrder, described: Description, *, check: BodyCheck) -> None:
        """Send a file in parts. What is not completed is aborted, when cancelled too.

        Args:
            order: of the file.
            described: what is said of the object.
            check: what the service compares to each part.

        Raises:
            StoreFailed: with the reason.
        """
        request: CreateMultipartUploadRequestTypeDef = {
            "Bucket": self._bucket,
            "Key": order.key,
            "ContentType": described.media_type,
            "ContentDisposition": described.disposition,
            "CacheControl": described.cache_control,
            "Metadata": {name: _as_ascii(text) for name, text in described.metadata.items()},
        }
        if check in ALGORITHMS:
            request["ChecksumAlgorithm"] = ALGORITHMS[check]
        async with within(self._timeout_s):
            begun = await self._client.create_multipart_upload(**request)
        upload_id = begun["UploadId"]
        self._under_way.add(upload_id)
        completed = False
        try:
            parts = await self._send(order, upload_id, check)
            async with within(self._timeout_s + len(parts)):
                await self._client.complete_multipart_upload(
                    Bucket=self._bucket,
                    Key=order.key,
                    UploadId=upload_id,
                    MultipartUpload={"Parts": parts},
                )
            completed = True
        finally:
            if not completed:
                await self._abort_whatever_comes(order.key, upload_id)
            self._under_way.discard(upload_id)

    async def sweep(self, *, before: datetime) -> int:
        """Abort our own uploads that began before a moment; how many.

        What a killed process left: its parts cost space and are seen by no listing of objects.
        A key that we would not give an object is somebody else's upload. No more is kept in
        memory than one page of them.

        Raises:
            StoreFailed: the bucket gave no answer.
        """
        swept = 0
        paginator = self._client.get_paginator("list_multipart_uploads")
        pages = aiter(paginator.paginate(Bucket=self._bucket))
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
                swept += await self._swept(key, upload_id)

    async def _swept(self, key: str, upload_id: str) -> bool:
        async with within(self._timeout_s):
            try:
                await self._client.abort_multipart_upload(
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
        self, order: PutOrder, upload_id: str, check: BodyCheck
    ) -> list[CompletedPartTypeDef]:
        assert not isinstance(order.path, Held), "what is held in memory is sent in one piece"
        count = -(-order.size_bytes // PART_BYTES)
        spent = SpentFile(order.path, parts=count, part_bytes=PART_BYTES) if order.spent else None
        # The last one first: a file can be cut off at its end alone.
        numbers = iter(range(count, 0, -1))
        sent: dict[int, CompletedPartTypeDef] = {}

        async def work(numbers: Iterator[int]) -> None:
            for number in numbers:
                sent[number] = await self._send_part(order, upload_id, number, check)
                if spent is not None:
                    await spent.sent(number)

        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(self._parts_at_once, count)):
                    workers.create_task(work(numbers))
        except* StoreFailed as group:
            # Several parts fail alike; the first says it all.
            failed = _first(group)
            raise failed from failed.__cause__
        return [sent[number] for number in sorted(sent)]

    async def _send_part(
        self, order: PutOrder, upload_id: str, number: int, check: BodyCheck
    ) -> CompletedPartTypeDef:
        offset = (number - 1) * PART_BYTES
        size = min(PART_BYTES, order.size_bytes - offset)
        assert not isinstance(order.path, Held), "what is held in memory is sent in one piece"
        body = FilePart(order.path, offset=offset, size_bytes=size)
        async with self._places, within(self._timeout_s + size / self._pace):
            # The hash of the whole says nothing of a part.
            if check is BodyCheck.CRC32 and order.crc32s:
                digest = crc32_digest(order.crc32s[number - 1])
            else:
                digest = await asyncio.to_thread(body.digest, check)
            headers: dict[str, str] = {}
            sha256 = UNSIGNED
            completed: CompletedPartTypeDef = {"PartNumber": number}
            match check:
                case BodyCheck.CRC32:
                    completed["ChecksumCRC32"] = as_header(digest)
                case BodyCheck.SHA256:
                    completed["ChecksumSHA256"] = as_header(digest)
                    sha256 = digest.hex()
                case BodyCheck.NONE:
                    sha256 = digest.hex()
                case BodyCheck.MD5:
                    pass
            if check in HEADERS:
                headers[HEADERS[check]] = as_header(digest)
            answer = await self._wire.send(
                "UploadPart",
                "PUT",
                order.key,
                headers=headers,
                query=f"partNumber={number}&uploadId={quote(upload_id, safe='')}",
                body=body,
                sha256=sha256,
            )
        if not answer.ok:
            raise answer.failure()
        completed["ETag"] = answer.headers.get("etag", "")
        return completed

    async def _abort_whatever_comes(self, key: str, upload_id: str) -> None:
        # A task of its own, so that a second cancellation does not leave the upload behind.
        aborting = asyncio.create_task(self._abort(key, upload_id))
        self._aborting.add(aborting)
        aborting.add_done_callback(self._aborting.discard)
        await asyncio.shield(aborting)

    async def _abort(self, key: str, upload_id: str) -> None:
        try:
            async with within(self._timeout_s):
                await self._client.abort_multipart_upload(
                    Bucket=self._bucket, Key=key, UploadId=upload_id
                )
        except StoreFailed as error:
            # Its parts cost space until they are swept; the failure that led here is what counts.
            log.warning("upload_not_aborted", key=key, upload_id=upload_id, why=error.detail)


def _first(group: BaseExceptionGroup[StoreFailed]) -> StoreFailed:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


def _as_ascii(text: str) -> str:
    """Headers hold nothing else."""
    return text if text.isascii() else quote(text)
