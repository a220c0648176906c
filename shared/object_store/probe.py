"""Finds out what a bucket can do by doing it, with small objects that are gone afterwards."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

import structlog
from botocore.exceptions import ClientError
from yarl import URL

from shared.contracts.reasons import ReasonCode
from shared.object_store.capabilities import BodyCheck, BucketCapabilities
from shared.object_store.checksums import ALGORITHMS, PARAMETERS, as_header, digest_of
from shared.object_store.clients import s3_clients
from shared.object_store.failures import of_the_whole_bucket, within
from shared.object_store.port import StoreFailed
from shared.object_store.sessions import session
from shared.object_store.trailer import put_with_trailer

if TYPE_CHECKING:
    from shared.object_store.clients import S3Clients
    from shared.object_store.settings import S3Settings

log = structlog.get_logger()

PREFIX: Final = "velro-probe"
# Half of what services tolerate.
SKEW_WARNING_S: Final = 450.0
MIB: Final = 1024 * 1024
_LEFT_BEHIND_AFTER: Final = timedelta(hours=1)

_BODY: Final = bytes(range(256)) * 8
_OTHER: Final = _BODY[::-1]
_METADATA: Final = {"sha256": hashlib.sha256(_BODY).hexdigest()}
# The smallest that a part other than the last may be.
_FIRST_PART: Final = bytes(5 * MIB)
_LAST_PART: Final = b"the end"


async def probe_bucket(settings: S3Settings) -> BucketCapabilities:
    """What the bucket that the settings name can do: for a look from outside of the services.

    Its `clock_skew_s` and `reasons` are what a person is to be told. See `probe`; it may take
    `timeout_s` of the settings for each of its requests.

    Raises:
        StoreFailed: the bucket is not there, refuses us, or does not keep what it is given.
        KeysUnreadable: the settings name files of keys, which hold none.
    """
    async with s3_clients(settings) as clients:
        return await probe(clients, settings)


def is_overheard(settings: S3Settings) -> bool:
    """Whether somebody between us and the service could change what is sent.

    A CRC is computed as easily for other bytes, so it is no guard there, header or not, signed or
    not: SHA-256 is, or MD5 where the service compares nothing better.
    """
    endpoint = settings.endpoint_url
    if endpoint is None or endpoint.scheme == "https":
        return False
    host = (endpoint.host or "").strip("[]")
    if host == "localhost":
        return False
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return True


async def probe(clients: S3Clients, settings: S3Settings) -> BucketCapabilities:
    """What the bucket can do. Writes below `velro-probe/` and cleans up. About 30 requests.

    Raises:
        StoreFailed: the bucket is not there, refuses us, or does not keep what it is given.
    """
    return await _Probe(clients, settings).run()


class _Probe:
    def __init__(self, clients: S3Clients, settings: S3Settings) -> None:
        self._clients = clients
        self._settings = settings
        self._folder = f"{PREFIX}/{secrets.token_hex(8)}"
        self._written: list[str] = []
        self._reasons: list[str] = []

    async def run(self) -> BucketCapabilities:
        with of_the_whole_bucket(self._settings):
            async with within(self._settings.timeout_s):
                # Some services make a bucket that is missing when something is put there.
                await self._clients.plain.head_bucket(Bucket=self._settings.bucket)
        try:
            skew_s = await self._round_trip()
            conditional_put = await self._conditional_put()
            body_check = await self._body_check()
            checksum_trailers = await self._checksum_trailers()
            part_check = await self._multipart(body_check)
            found = BucketCapabilities(
                conditional_put=conditional_put,
                body_check=body_check,
                checksum_trailers=checksum_trailers,
                multipart=part_check is not None,
                signed_urls=await self._signed_urls(),
                clock_skew_s=skew_s,
                reasons=tuple(self._reasons),
                part_check=part_check or BodyCheck.NONE,
            )
        finally:
            await self._clean()
        log.info("bucket_probed", bucket=self._settings.bucket, found=found)
        return found

    async def _round_trip(self) -> float:
        """Bytes and metadata come back as they went; how far the service's clock is ahead."""
        before = datetime.now(UTC)
        said_at = await self._put("whole", _BODY)
        middle = before + (datetime.now(UTC) - before) / 2
        if await self._read("whole") != _BODY:
            detail = f"{self._settings.bucket} gives back other bytes than it was given"
            raise StoreFailed(ReasonCode.CHECKSUM_MISMATCH, detail)
        async with within(self._settings.timeout_s):
            head = await self._clients.plain.head_object(
                Bucket=self._settings.bucket, Key=f"{self._folder}/whole"
            )
        if head["Metadata"] != _METADATA:
            detail = f"{self._settings.bucket} does not keep metadata, by which objects are known"
            raise StoreFailed(ReasonCode.CHECKSUM_MISMATCH, detail)
        skew_s = (said_at - middle).total_seconds() if said_at else 0.0
        if abs(skew_s) > SKEW_WARNING_S:
            self._reasons.append(
                f"its clock is {skew_s:+.0f} s from ours; signatures fail from 900 s on"
            )
        return skew_s

    async def _conditional_put(self) -> bool:
        await self._put("taken", _BODY)
        refused = await self._refuses("taken", _OTHER, IfNoneMatch="*")
        if refused and await self._read("taken") == _BODY:
            return True
        self._reasons.append("it ignores If-None-Match: each put is preceded by a look")
        return False

    async def _body_check(self) -> BodyCheck:
        """The cheapest check that refuses a lie, and takes the truth without storing it."""
        # A CRC finds what went wrong on the way, and not what somebody there has made to fit it.
        if not is_overheard(self._settings) and await self._checks(BodyCheck.CRC32):
            return BodyCheck.CRC32
        if await self._checks(BodyCheck.SHA256):
            return BodyCheck.SHA256
        if await self._checks(BodyCheck.MD5):
            self._reasons.append("it compares no SHA-256 to the body: each body is hashed for MD5")
            return BodyCheck.MD5
        self._reasons.append("it compares no checksum to the body: each object is read back")
        return BodyCheck.NONE

    async def _checks(self, check: BodyCheck) -> bool:
        name, said = check.value, PARAMETERS[check]
        lie, truth = digest_of(_OTHER, check), digest_of(_BODY, check)
        if not await self._refuses(f"{name}-lie", _BODY, **{said: as_header(lie)}):
            return False
        if await self._refuses(name, _BODY, **{said: as_header(truth)}):
            return False
        return await self._read(name) == _BODY

    async def _checksum_trailers(self) -> bool:
        """What Velro never sends, and other clients of the bucket do unless told not to."""
        key = self._key("trailer")
        async with within(self._settings.timeout_s):
            status = await put_with_trailer(
                self._settings, await self._clients.credentials.pair(), key=key, body=_BODY
            )
        if status == 200 and await self._read("trailer") == _BODY:  # noqa: PLR2004 - HTTP
            return True
        how = "stores them inside of the object" if status == 200 else "refuses them"  # noqa: PLR2004 - HTTP
        self._reasons.append(f"it {how}, checksums after the body: other clients must not send any")
        return False

    async def _multipart(self, body_check: BodyCheck) -> BodyCheck | None:
        """The check that parts go by, where they are taken at all."""
        why = ""
        for check in dict.fromkeys((body_check, BodyCheck.SHA256, BodyCheck.MD5)):
            try:
                if await self._joins_parts(check):
                    return check
                why = "joins parts wrongly, or compares nothing to them"
            except StoreFailed as error:
                why = f"refuses parts ({error.detail})"
        self._reasons.append(f"it {why}: large files are sent in one piece")
        return None

    async def _joins_parts(self, check: BodyCheck) -> bool:
        # The headers in question are named at run time.
        client: Any = self._clients.plain
        bucket, key = self._settings.bucket, self._key("parts")
        whole = {"ChecksumAlgorithm": ALGORITHMS[check]} if check in ALGORITHMS else {}
        upload_id: str | None = None
        try:
            async with within(self._settings.timeout_s):
                begun = await client.create_multipart_upload(Bucket=bucket, Key=key, **whole)
                upload_id = begun["UploadId"]
                completed: list[dict[str, Any]] = []
                where = {"Bucket": bucket, "Key": key, "UploadId": upload_id}
                if check is not BodyCheck.NONE:
                    lie, _ = _promised(_FIRST_PART, check)
                    if not await self._refuses_part(Body=_LAST_PART, PartNumber=2, **where, **lie):
                        return False
                for number, part in enumerate((_FIRST_PART, _LAST_PART), start=1):
                    said, kept = _promised(part, check)
                    sent = await client.upload_part(Body=part, PartNumber=number, **where, **said)
                    completed.append({"PartNumber": number, "ETag": sent["ETag"], **kept})
                await client.complete_multipart_upload(
                    Bucket=bucket,
                    Key=key,
                    UploadId=upload_id,
                    MultipartUpload={"Parts": completed},
                )
            upload_id = None
            return await self._read("parts") == _FIRST_PART + _LAST_PART
        finally:
            if upload_id is not None:
                await self._abort(key, upload_id)

    async def _refuses_part(self, **part: Any) -> bool:  # noqa: ANN401 - as above
        client: Any = self._clients.plain
        try:
            await client.upload_part(**part)
        except ClientError:
            return True
        return False

    async def _abort(self, key: str, upload_id: str) -> None:
        try:
            async with within(self._settings.timeout_s):
                await self._clients.plain.abort_multipart_upload(
                    Bucket=self._settings.bucket, Key=key, UploadId=upload_id
                )
        except StoreFailed as error:
            log.warning("upload_not_aborted", key=key, upload_id=upload_id, why=error.detail)

    async def _signed_urls(self) -> bool:
        signed = await self._clients.signer.generate_presigned_url(
            "get_object",
            Params={"Bucket": self._settings.bucket, "Key": f"{self._folder}/whole"},
            ExpiresIn=60,
        )
        why = "does not let readers in by signed URLs"
        try:
            async with (
                within(self._settings.timeout_s),
                session(self._settings, outside=True) as reader,
                reader.get(URL(signed, encoded=True)) as answer,
            ):
                if await answer.read() == _BODY:
                    return True
        except StoreFailed as error:
            # Readers outside may have another way to it than we do.
            why = f"cannot be read from here by signed URLs ({error.detail})"
        self._reasons.append(f"it {why}")
        return False

    def _key(self, name: str) -> str:
        key = f"{self._folder}/{name}"
        if key not in self._written:
            self._written.append(key)
        return key

    async def _put(self, name: str, body: bytes, **said: str) -> datetime | None:
        """The service's time, where it tells it."""
        # The headers in question are named at run time.
        client: Any = self._clients.signing
        async with within(self._settings.timeout_s):
            answer = await client.put_object(
                Bucket=self._settings.bucket,
                Key=self._key(name),
                Body=body,
                Metadata=_METADATA,
                **said,
            )
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        return parsedate_to_datetime(date) if date else None

    async def _refuses(self, name: str, body: bytes, **said: str) -> bool:
        try:
            await self._put(name, body, **said)
        except StoreFailed as error:
            if isinstance(error.__cause__, ClientError):
                return True
            raise
        return False

    async def _read(self, name: str) -> bytes:
        async with within(self._settings.timeout_s):
            answer = await self._clients.plain.get_object(
                Bucket=self._settings.bucket, Key=f"{self._folder}/{name}"
            )
            async with answer["Body"] as body:
                return await body.read()

    async def _clean(self) -> None:
        """Remove what was written here, and what a probe that was killed has left."""
        client, bucket = self._clients.plain, self._settings.bucket
        long_ago = datetime.now(UTC) - _LEFT_BEHIND_AFTER
        try:
            async with within(self._settings.timeout_s):
                listed = await client.list_objects_v2(Bucket=bucket, Prefix=f"{PREFIX}/")
            left = [
                found.get("Key", "")
                for found in listed.get("Contents", [])
                if found.get("LastModified", long_ago) < long_ago
            ]
            for key in (*self._written, *left):
                async with within(self._settings.timeout_s):
                    await client.delete_object(Bucket=bucket, Key=key)
        except StoreFailed as error:
            log.warning("probe_left_objects", folder=self._folder, why=error.detail)


def _promised(part: bytes, check: BodyCheck) -> tuple[dict[str, str], dict[str, str]]:
    """What is said of a part when it is sent, and again when all are joined."""
    if check is BodyCheck.NONE:
        return {}, {}
    said = {PARAMETERS[check]: as_header(digest_of(part, check))}
    return said, said if check in ALGORITHMS else {}
