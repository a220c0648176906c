"""The bucket on any S3 service."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

import aioboto3
import structlog
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError

from shared.contracts.reasons import ReasonCode
from shared.object_store.port import Head, PutOrder, StoreFailed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator

    from types_aiobotocore_s3 import S3Client

    from shared.contracts.events import StoredObject
    from shared.object_store.settings import S3Settings

log = structlog.get_logger()

MIB: Final = 1024 * 1024
SINGLE_PUT_BYTES: Final = 64 * MIB
# The same for every part but the last: R2 refuses others. 10,000 parts make 156 GiB.
PART_BYTES: Final = 16 * MIB
# Parts of one upload at once, each held in memory while it is sent.
PARTS_AT_ONCE: Final = 4
SHA256_KEY: Final = "sha256"
# Objects are named by their bytes and never change.
CACHE_CONTROL: Final = "public, max-age=31536000, immutable"

_FULL: Final = {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "StorageFull"}
_CREDENTIALS: Final = {
    "AccessDenied",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "403",
    "401",
}
_DIGEST: Final = {"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch"}


class S3ObjectStore:
    """`ObjectStore` on one bucket. Made by `s3_object_store`, which owns its connections."""

    def __init__(self, client: S3Client, signer: S3Client, settings: S3Settings) -> None:
        self._client = client
        self._signer = signer
        self._settings = settings

    @property
    def bucket(self) -> str:
        """See `ObjectStore.bucket`."""
        return self._settings.bucket

    async def put(self, order: PutOrder) -> None:
        """See `ObjectStore.put`. What is there already, by size and hash, is not sent again."""
        if _same(await self.head(order.key), order):
            return
        with _failures():
            if order.size_bytes <= SINGLE_PUT_BYTES:
                await self._put_at_once(order)
            else:
                await self._put_in_parts(order)
        found = await self.head(order.key)
        if not _same(found, order):
            detail = f"{order.key} is not as it was sent: found {found}"
            raise StoreFailed(ReasonCode.CHECKSUM_MISMATCH, detail)

    async def head(self, key: str) -> Head | None:
        """See `ObjectStore.head`."""
        with _failures():
            try:
                found = await self._client.head_object(Bucket=self.bucket, Key=key)
            except ClientError as error:
                if _status(error) == 404:  # noqa: PLR2004 - HTTP
                    return None
                raise
        return Head(
            key=key,
            size_bytes=found["ContentLength"],
            media_type=found.get("ContentType", ""),
            sha256=found["Metadata"].get(SHA256_KEY),
        )

    async def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        with _failures():
            await self._client.delete_object(Bucket=self.bucket, Key=key)

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """See `ObjectStore.keys`."""
        paginator = self._client.get_paginator("list_objects_v2")
        with _failures():
            async for page in paginator.paginate(Bucket=self.bucket, Prefix=prefix):
                for found in page.get("Contents", []):
                    yield found.get("Key", "")

    async def url(self, stored: StoredObject) -> str:
        """See `ObjectStore.url`. Signed without asking the service."""
        if self._settings.url_mode == "public" and self._settings.public_base_url is not None:
            return f"{str(self._settings.public_base_url).rstrip('/')}/{quote(stored.key)}"
        return await self._signer.generate_presigned_url(
            "get_object",
            Params={"Bucket": stored.bucket, "Key": stored.key},
            ExpiresIn=self._settings.signed_url_ttl_s,
        )

    async def _put_at_once(self, order: PutOrder) -> None:
        with order.path.open("rb") as body:
            await self._client.put_object(
                Bucket=self.bucket,
                Key=order.key,
                Body=body,
                ContentLength=order.size_bytes,
                # The service checks it where it knows how; one that does not ignores the header.
                ChecksumSHA256=base64.b64encode(bytes.fromhex(order.sha256)).decode(),
                ContentType=order.media_type,
                ContentDisposition="inline",
                CacheControl=CACHE_CONTROL,
                Metadata={**order.metadata, SHA256_KEY: order.sha256},
            )

    async def _put_in_parts(self, order: PutOrder) -> None:
        upload = await self._client.create_multipart_upload(
            Bucket=self.bucket,
            Key=order.key,
            ContentType=order.media_type,
            ContentDisposition="inline",
            CacheControl=CACHE_CONTROL,
            Metadata={**order.metadata, SHA256_KEY: order.sha256},
        )
        upload_id = upload["UploadId"]
        completed = False
        try:
            at_once = asyncio.Semaphore(PARTS_AT_ONCE)
            numbers = range(1, -(-order.size_bytes // PART_BYTES) + 1)
            async with asyncio.TaskGroup() as sending:
                parts = [
                    sending.create_task(self._put_part(order, upload_id, number, at_once))
                    for number in numbers
                ]
            await self._client.complete_multipart_upload(
                Bucket=self.bucket,
                Key=order.key,
                UploadId=upload_id,
                MultipartUpload={
                    "Parts": [
                        {"PartNumber": number, "ETag": part.result()}
                        for number, part in zip(numbers, parts, strict=True)
                    ]
                },
            )
            completed = True
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group
        finally:
            if not completed:
                await asyncio.shield(self._abort(order.key, upload_id))

    async def _put_part(
        self, order: PutOrder, upload_id: str, number: int, at_once: asyncio.Semaphore
    ) -> str:
        async with at_once:
            body = await asyncio.to_thread(_read_part, order, number)
            answer = await self._client.upload_part(
                Bucket=self.bucket,
                Key=order.key,
                UploadId=upload_id,
                PartNumber=number,
                Body=body,
            )
            return answer["ETag"]

    async def _abort(self, key: str, upload_id: str) -> None:
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await self._client.abort_multipart_upload(
                    Bucket=self.bucket, Key=key, UploadId=upload_id
                )
        except (ClientError, BotoCoreError, TimeoutError) as error:
            # Its parts cost space until they are swept; the failure that led here is what counts.
            log.warning("upload_not_aborted", key=key, upload_id=upload_id, why=str(error))


@contextlib.asynccontextmanager
async def s3_object_store(settings: S3Settings) -> AsyncGenerator[S3ObjectStore]:
    """The bucket that the settings name; its connections are closed at the end."""
    # aioboto3 makes its clients at run time: this is the one place where they get a type.
    session: Any = aioboto3.Session(
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key.get_secret_value(),
        region_name=settings.region,
    )
    config = AioConfig(
        connect_timeout=5,
        read_timeout=settings.timeout_s,
        max_pool_connections=settings.max_connections,
        # Retrying is the caller's, who has a policy for it.
        retries={"total_max_attempts": 1},
        s3={"addressing_style": "path"},
        signature_version="s3v4",
        # By default botocore appends a checksum to the body, which some services store with it.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    endpoint = str(settings.endpoint_url) if settings.endpoint_url else None
    public = str(settings.public_endpoint_url) if settings.public_endpoint_url else endpoint
    async with (
        session.client("s3", endpoint_url=endpoint, config=config) as client,
        session.client("s3", endpoint_url=public, config=config) as signer,
    ):
        yield S3ObjectStore(cast("S3Client", client), cast("S3Client", signer), settings)


def _same(found: Head | None, order: PutOrder) -> bool:
    return (
        found is not None and found.size_bytes == order.size_bytes and found.sha256 == order.sha256
    )


def _read_part(order: PutOrder, number: int) -> bytes:
    with order.path.open("rb") as file:
        file.seek((number - 1) * PART_BYTES)
        return file.read(PART_BYTES)


@contextlib.contextmanager
def _failures() -> Generator[None]:
    """Botocore's errors as ours."""
    try:
        yield
    except ClientError as error:
        raise StoreFailed(_reason(error), str(error)) from error
    except (BotoCoreError, OSError, TimeoutError) as error:
        detail = f"{type(error).__name__}: {error}"
        raise StoreFailed(ReasonCode.BUCKET_UNAVAILABLE, detail) from error


def _reason(error: ClientError) -> ReasonCode:
    code = error.response.get("Error", {}).get("Code", "")
    status = _status(error)
    if code in _FULL or status == 507:  # noqa: PLR2004 - Insufficient Storage
        return ReasonCode.BUCKET_FULL
    if code in _DIGEST:
        return ReasonCode.CHECKSUM_MISMATCH
    if code in _CREDENTIALS or status in {401, 403}:
        return ReasonCode.CREDENTIALS_REFUSED
    return ReasonCode.BUCKET_UNAVAILABLE


def _status(error: ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
