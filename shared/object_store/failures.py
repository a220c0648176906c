"""Botocore's errors as ours."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    ParamValidationError,
)

from shared.contracts.reasons import ReasonCode
from shared.errors import in_words
from shared.http11.errors import HttpFailed
from shared.object_store.port import BucketRefused, StoreFailed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Mapping

    from shared.object_store.settings import S3Settings

NOT_FOUND: Final = 404
CONFLICT: Final = 409
PRECONDITION_FAILED: Final = 412

_INSUFFICIENT_STORAGE: Final = 507
_REFUSED: Final = frozenset({401, 403})
_FULL: Final = frozenset(
    {
        "InsufficientStorage",
        "InsufficientStorageSpace",
        "QuotaExceeded",
        "QuotaExceededException",
        "StorageFull",
        "XMinioAdminBucketQuotaExceeded",
        "XMinioStorageFull",
    }
)
_CREDENTIALS: Final = frozenset(
    {
        "AccessDenied",
        "AllAccessDisabled",
        "AccountProblem",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
# Of an answer to HEAD the status is all there is.
_NO_BUCKET: Final = ("NoSuchBucket", f"HeadBucket: {NOT_FOUND}")
_DIGEST: Final = frozenset(
    {"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"}
)


@contextlib.asynccontextmanager
async def within(deadline_s: float) -> AsyncGenerator[None]:
    """Everything inside ends in time, or with a `StoreFailed` that says why it did not.

    Raises:
        StoreFailed: with the reason.
    """
    try:
        async with asyncio.timeout(deadline_s):
            yield
    except ParamValidationError as error:
        # Never sent: it says something of us, and nothing of the bucket.
        raise StoreFailed(ReasonCode.INTERNAL, str(error)) from error
    except ClientError as error:
        detail = sentence_of(error.operation_name, error.response)
        raise StoreFailed(reason_of(error.response), detail) from error
    except TimeoutError as error:
        detail = f"the bucket did not answer within {deadline_s:g} s"
        raise StoreFailed(ReasonCode.BUCKET_UNAVAILABLE, detail) from error
    except EndpointConnectionError as error:
        # Its own words are the address with all of the question.
        detail = f"{type(error).__name__}: no connection"
        raise StoreFailed(ReasonCode.BUCKET_UNAVAILABLE, detail) from error
    except (BotoCoreError, aiohttp.ClientError, HttpFailed, OSError) as error:
        detail = in_words(error)
        raise StoreFailed(ReasonCode.BUCKET_UNAVAILABLE, detail) from error


@contextlib.contextmanager
def of_the_whole_bucket(settings: S3Settings) -> Generator[None]:
    """What fails inside says something of the bucket, and of no single object.

    Raises:
        StoreFailed: with the bucket's name, and what a person can do.
    """
    try:
        yield
    except StoreFailed as error:
        place = f"{settings.bucket} at {settings.endpoint_url or 'Amazon S3'}"
        detail, advice, kind = error.detail, "", StoreFailed
        if error.reason is ReasonCode.CREDENTIALS_REFUSED:
            kind = BucketRefused
            detail = f"the bucket {place} refuses our keys ({error.detail})"
            advice = (
                "set VELRO_S3_ACCESS_KEY and VELRO_S3_SECRET_KEY, or the files that hold them, to "
                "keys that may list, read, write and delete there"
            )
        elif any(said in error.detail for said in _NO_BUCKET):
            kind = BucketRefused
            detail = f"there is no bucket {place}"
            advice = "make it, or set VELRO_S3_BUCKET and VELRO_S3_ENDPOINT_URL to the right one"
        elif error.reason is ReasonCode.BUCKET_UNAVAILABLE:
            detail = f"the bucket {place} cannot be used ({error.detail})"
            advice = "see that the service runs, and that VELRO_S3_ENDPOINT_URL leads to it"
        raise kind(error.reason, detail, advice=advice) from error


def status_of(error: ClientError) -> int:
    """The HTTP status of an answer; 0 where there was none."""
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def reason_of(answer: Mapping[str, Any]) -> ReasonCode:
    """What an answer that is an error says, as botocore has parsed it."""
    code = answer.get("Error", {}).get("Code", "")
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _FULL or status == _INSUFFICIENT_STORAGE:
        return ReasonCode.BUCKET_FULL
    if code in _DIGEST:
        return ReasonCode.CHECKSUM_MISMATCH
    if code in _CREDENTIALS or status in _REFUSED:
        return ReasonCode.CREDENTIALS_REFUSED
    return ReasonCode.BUCKET_UNAVAILABLE


def sentence_of(what: str, answer: Mapping[str, Any]) -> str:
    """What was asked and what was said; an answer to HEAD has a status and no words."""
    said = answer.get("Error", {})
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return f"{what}: {status} {said.get('Code', '')}: {said.get('Message') or 'no reason given'}"
