"""The bucket on any S3 service."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from shared.contracts.reasons import ReasonCode
from shared.object_store.capabilities import BodyCheck, BucketCapabilities
from shared.object_store.checksums import (
    HEADERS,
    as_header,
    crc32_digest,
    crc32_of_parts,
    digest_of,
)
from shared.object_store.clients import S3Clients, s3_clients
from shared.object_store.failures import (
    CONFLICT,
    NOT_FOUND,
    PRECONDITION_FAILED,
    of_the_whole_bucket,
    within,
)
from shared.object_store.file_part import FilePart
from shared.object_store.listing import list_bucket
from shared.object_store.port import Head, Held, Put, PutOrder, StoreFailed
from shared.object_store.probe import probe
from shared.object_store.uploads import PART_BYTES, Description, Uploads
from shared.object_store.wire import open_wire

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping
    from datetime import datetime

    from shared.contracts.facts import StoredObject
    from shared.object_store.port import Listed
    from shared.object_store.settings import S3Settings
    from shared.object_store.wire import Answer, Wire

MIB: Final = 1024 * 1024
SINGLE_PUT_BYTES: Final = 64 * MIB
# Up to here it costs less to send again than to ask first.
ASK_FIRST_BYTES: Final = 8 * MIB
# Up to here a body is sent from memory, without a thread for each read of the file.
FROM_MEMORY_BYTES: Final = 1 * MIB
READ_BYTES: Final = 1 * MIB
SHA256_KEY: Final = "sha256"
# Objects are named by their bytes and never change.
CACHE_CONTROL: Final = "public, max-age=31536000, immutable"


class S3ObjectStore:
    """`ObjectStore` on one bucket. Made by `s3_object_store`, which owns its connections."""

    def __init__(self, clients: S3Clients, wire: Wire, settings: S3Settings) -> None:
        self._clients = clients
        self._wire = wire
        self._settings = settings
        self._uploads = Uploads(clients.plain, wire, settings)
        self._capabilities: BucketCapabilities | None = None
        self._learned = asyncio.Event()

    @property
    def bucket(self) -> str:
        """See `ObjectStore.bucket`."""
        return self._settings.bucket

    @property
    def capabilities(self) -> BucketCapabilities | None:
        """What puts go by; None before `learn`: then nothing is taken for granted."""
        return self._capabilities

    async def learn(self) -> BucketCapabilities:
        """Find out what the bucket can do, and put accordingly from now on.

        Raises:
            StoreFailed: the bucket is not there, refuses us, or does not keep what it is given.
        """
        self._capabilities = await probe(self._clients, self._settings)
        self._learned.set()
        return self._capabilities

    async def learned(self) -> BucketCapabilities:
        """What the bucket can do, once that is found out: for callers with a deadline."""
        await self._learned.wait()
        assert self._capabilities is not None, "set before the event"
        return self._capabilities

    async def reread_keys(self) -> None:
        """Sign with what the files of keys hold now; nothing where the keys are settings."""
        await self._clients.credentials.reread()

    async def put(self, order: PutOrder) -> Put:
        """See `ObjectStore.put`. What is there already, by size and hash, is not sent again."""
        known = self._capabilities
        conditional = known is not None and known.conditional_put
        small = order.size_bytes <= ASK_FIRST_BYTES
        if conditional and small and await self._sent_unless_there(order):
            await self._verify(order)
            return Put.STORED
        if await self._is_there(order):
            return Put.ALREADY_THERE
        if order.size_bytes > SINGLE_PUT_BYTES and (known is None or known.multipart):
            check = known.part_check if known is not None else BodyCheck.NONE
            await self._uploads.put(order, _described(order), check=check)
        else:
            await self._send(order)
        await self._verify(order)
        return Put.STORED

    async def head(self, key: str) -> Head | None:
        """See `ObjectStore.head`."""
        async with within(self._settings.timeout_s):
            answer = await self._wire.send("HeadObject", "HEAD", key, headers={})
        if answer.status == NOT_FOUND:
            return None
        if not answer.ok:
            raise answer.failure()
        return Head(
            key=key,
            size_bytes=int(answer.headers.get("content-length", 0)),
            media_type=answer.headers.get("content-type", ""),
            sha256=answer.headers.get(f"x-amz-meta-{SHA256_KEY}"),
        )

    async def read(self, key: str) -> AsyncIterator[bytes]:
        """See `ObjectStore.read`. The deadline is one for each piece."""
        async with within(self._settings.timeout_s):
            answer = await self._clients.plain.get_object(Bucket=self.bucket, Key=key)
        received = 0
        body = answer["Body"]
        async with body:
            while True:
                async with within(self._settings.timeout_s):
                    piece = await body.read(READ_BYTES)
                if not piece:
                    break
                received += len(piece)
                yield piece
        if received != answer["ContentLength"]:
            detail = f"{received:,} of {answer['ContentLength']:,} bytes of {key} came"
            raise StoreFailed(ReasonCode.BUCKET_UNAVAILABLE, detail)

    async def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        async with within(self._settings.timeout_s):
            await self._clients.plain.delete_object(Bucket=self.bucket, Key=key)

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """See `ObjectStore.keys`. The deadline is one for each page."""
        paginator = self._clients.plain.get_paginator("list_objects_v2")
        pages = aiter(paginator.paginate(Bucket=self.bucket, Prefix=prefix))
        while True:
            with of_the_whole_bucket(self._settings):
                async with within(self._settings.timeout_s):
                    page = await anext(pages, None)
            if page is None:
                return
            for found in page.get("Contents", []):
                yield found.get("Key", "")

    def pages(self, prefix: str = "") -> AsyncGenerator[list[Listed], None]:
        """See `ObjectStore.pages`. The deadline is one for each page."""
        return list_bucket(self._clients.plain, self._settings, prefix=prefix)

    async def sweep_stale_uploads(self, *, begun_before: datetime) -> int:
        """See `ObjectStore.sweep_stale_uploads`."""
        return await self._uploads.sweep(before=begun_before)

    async def url(self, stored: StoredObject) -> str:
        """See `ObjectStore.url`. Signed without asking the service."""
        if self._settings.url_mode == "public" and self._settings.public_base_url is not None:
            return f"{str(self._settings.public_base_url).rstrip('/')}/{quote(stored.key)}"
        return await self._clients.signer.generate_presigned_url(
            "get_object",
            Params={"Bucket": stored.bucket, "Key": stored.key},
            ExpiresIn=self._settings.urls_live_s,
        )

    async def drained(self) -> None:
        """Wait for uploads that are being aborted; each is bounded in time."""
        await self._uploads.close()

    async def _sent_unless_there(self, order: PutOrder) -> bool:
        """Whether it was sent; else something is at the key, or just being put there."""
        answer = await self._sent(order, {"If-None-Match": "*"})
        if answer.status in {PRECONDITION_FAILED, CONFLICT}:
            return False
        if not answer.ok:
            raise answer.failure()
        return True

    async def _send(self, order: PutOrder) -> None:
        answer = await self._sent(order, {})
        if not answer.ok:
            raise answer.failure()

    async def _sent(self, order: PutOrder, more: Mapping[str, str]) -> Answer:
        headers = {**_described(order).headers(), **more}
        body = await _body(order)
        match self._capabilities.body_check if self._capabilities else BodyCheck.NONE:
            case BodyCheck.SHA256:
                headers[HEADERS[BodyCheck.SHA256]] = as_header(bytes.fromhex(order.sha256))
            case BodyCheck.CRC32 if order.crc32s:
                whole = crc32_of_parts(
                    order.crc32s, part_bytes=PART_BYTES, size_bytes=order.size_bytes
                )
                headers[HEADERS[BodyCheck.CRC32]] = as_header(crc32_digest(whole))
            case BodyCheck.CRC32 | BodyCheck.MD5 as check:
                headers[HEADERS[check]] = as_header(await asyncio.to_thread(_digest, body, check))
            case BodyCheck.NONE:
                pass
        deadline_s = self._settings.timeout_s + order.size_bytes / self._settings.min_bytes_per_s
        async with within(deadline_s):
            return await self._wire.send(
                "PutObject", "PUT", order.key, headers=headers, body=body, sha256=order.sha256
            )

    async def _verify(self, order: PutOrder) -> None:
        """See that the object is there, by the bucket's word or by all its bytes.

        Raises:
            StoreFailed: it is not.
        """
        # Another worker may be putting the same bytes over it, and not every service does that in
        # one moment (`rclone serve s3`). What is there then is looked at as closely, once more.
        if not await self._is_there(order) and not await self._is_there(order):
            detail = f"{order.key} is not as it was sent: found {await self.head(order.key)}"
            raise StoreFailed(ReasonCode.CHECKSUM_MISMATCH, detail)

    async def _is_there(self, order: PutOrder) -> bool:
        found = await self.head(order.key)
        if found is None or found.size_bytes != order.size_bytes or found.sha256 != order.sha256:
            return False
        known = self._capabilities
        trusted = known is not None and known.body_check is not BodyCheck.NONE
        if self._settings.verify == "head" and trusted:
            return True
        digest = hashlib.sha256()
        async for piece in self.read(order.key):
            digest.update(piece)
        return digest.hexdigest() == order.sha256


@contextlib.asynccontextmanager
async def s3_object_store(settings: S3Settings) -> AsyncGenerator[S3ObjectStore]:
    """The bucket that the settings name; its connections are closed at the end.

    Nothing is taken for granted of it until `learn`: a process that stays uses `attended_bucket`.

    Raises:
        KeysUnreadable: the settings name files of keys, which hold none.
    """
    async with s3_clients(settings) as clients, open_wire(clients, settings) as wire:
        store = S3ObjectStore(clients, wire, settings)
        try:
            yield store
        finally:
            await store.drained()


async def _body(order: PutOrder) -> bytes | memoryview | FilePart:
    if isinstance(order.path, Held):
        return order.path.content
    if order.size_bytes <= FROM_MEMORY_BYTES:
        return await asyncio.to_thread(order.path.read_bytes)
    return FilePart(order.path, offset=0, size_bytes=order.size_bytes)


def _digest(body: bytes | memoryview | FilePart, check: BodyCheck) -> bytes:
    return body.digest(check) if isinstance(body, FilePart) else digest_of(body, check)


def _described(order: PutOrder) -> Description:
    name = order.key.rpartition("/")[2]
    # Bytes of no type are saved, and never shown in the place of whoever serves them.
    shown = "attachment" if order.media_type == "application/octet-stream" else "inline"
    return Description(
        media_type=order.media_type,
        disposition=f'{shown}; filename="{name}"',
        cache_control=CACHE_CONTROL,
        metadata={
            **order.metadata,
            SHA256_KEY: order.sha256,
            # S3 has no such header: for whoever serves the bucket, to be sent as one.
            "x-content-type-options": "nosniff",
        },
    )
