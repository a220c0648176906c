"""A put with its checksum after the body, as many clients send it: for the probe alone.

The form is AWS's `aws-chunked` with `STREAMING-UNSIGNED-PAYLOAD-TRAILER`. Botocore sends it over
TLS only, so here it is made by hand.
Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
"""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING, Final

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from yarl import URL

from shared.object_store.sessions import session

if TYPE_CHECKING:
    from shared.object_store.credentials import KeyPair
    from shared.object_store.settings import S3Settings

_PAYLOAD: Final = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


class _TrailerAuth(S3SigV4Auth):
    """Signs the headers, with the word that says where the checksum is in place of a hash."""

    def payload(self, request: AWSRequest) -> str:
        """Always the same."""
        del request
        return _PAYLOAD


async def put_with_trailer(settings: S3Settings, keys: KeyPair, *, key: str, body: bytes) -> int:
    """Put an object so; the answer's HTTP status.

    Raises:
        aiohttp.ClientError: there was no answer.
    """
    checksum = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
    chunked = b"".join(
        (
            f"{len(body):x}\r\n".encode(),
            body,
            f"\r\n0\r\nx-amz-checksum-crc32:{checksum}\r\n\r\n".encode(),
        )
    )
    base = settings.endpoint_url or f"https://s3.{settings.region}.amazonaws.com"
    request = AWSRequest(
        method="PUT",
        url=f"{str(base).rstrip('/')}/{settings.bucket}/{key}",
        headers={
            "Content-Encoding": "aws-chunked",
            "Content-Length": str(len(chunked)),
            "Content-Type": "application/octet-stream",
            "x-amz-decoded-content-length": str(len(body)),
            "x-amz-trailer": "x-amz-checksum-crc32",
        },
    )
    credentials = Credentials(keys.access_key, keys.secret_key, keys.token)
    _TrailerAuth(credentials, "s3", settings.region).add_auth(request)
    async with (
        session(settings) as requests,
        requests.put(
            URL(str(request.url), encoded=True), data=chunked, headers=dict(request.headers)
        ) as answer,
    ):
        return answer.status
