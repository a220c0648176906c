"""Requests are signed as botocore signs them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from shared.object_store.credentials import KeyPair
from shared.object_store.signing import signed

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
names = st.from_regex(r"\A(x-amz-meta-[a-z0-9-]{1,12}|Content-Type|Content-MD5|If-None-Match)\Z")
values = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20)


class _Signer(auth.S3SigV4Auth):
    body = ""

    def payload(self, request: AWSRequest) -> str:
        del request
        return self.body


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:8333", "https://media.s3.example"])
@given(
    method=st.sampled_from(["GET", "HEAD", "PUT"]),
    key=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    headers=st.dictionaries(names, values, max_size=5),
    query=st.sampled_from(["", "partNumber=2&uploadId=a%2Bb", "uploads"]),
    secret=st.text(min_size=1, max_size=8),
    token=st.none() | st.from_regex(r"\A[A-Za-z0-9/+=]{1,20}\Z"),
)
def test_a_signature_is_the_one_that_botocore_makes(
    endpoint: str,
    *,
    method: str,
    key: str,
    headers: dict[str, str],
    query: str,
    secret: str,
    token: str | None,
) -> None:
    path = f"/media/{quote(key, safe='/~')}"
    sha256 = hashlib.sha256(key.encode()).hexdigest()
    ours = signed(
        method,
        endpoint.partition("://")[2],
        path,
        query,
        headers=headers,
        sha256=sha256,
        keys=KeyPair("access", secret, token),
        region="eu-north-1",
        now=NOW,
    )
    signer = _Signer(Credentials("access", secret, token), "s3", "eu-north-1")
    signer.body = sha256
    url = f"{endpoint}{path}{'?' if query else ''}{query}"
    request = AWSRequest(method=method, url=url, headers=dict(headers))
    at_that_time(lambda: signer.add_auth(request))
    assert ours["Authorization"] == request.headers["Authorization"]
    assert ours.get("X-Amz-Security-Token") == request.headers["X-Amz-Security-Token"] == token


def at_that_time(do: Callable[[], None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auth, "get_current_datetime", lambda: NOW.replace(tzinfo=None))
        do()
