"""What is said of bodies, held against the standard library."""

from __future__ import annotations

import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.media import hashes
from shared.media.hashes import Hashes
from shared.object_store.capabilities import BodyCheck
from shared.object_store.checksums import as_header, crc32_of_parts, digest_of
from shared.object_store.probe import is_overheard
from shared.object_store.settings import S3Settings

CHUNKS = st.lists(st.binary(max_size=40), max_size=12)


@given(CHUNKS, st.integers(min_value=1, max_value=64))
def test_hashes_are_of_all_bytes_and_of_each_part_however_they_come(
    chunks: list[bytes], part_bytes: int
) -> None:
    body = b"".join(chunks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashes, "PART_BYTES", part_bytes)
        found = Hashes()
        for chunk in chunks:
            found.update(chunk)
    parts = [body[at : at + part_bytes] for at in range(0, len(body), part_bytes)] or [b""]
    assert found.sha256() == hashlib.sha256(body).hexdigest()
    assert found.crc32s() == tuple(zlib.crc32(part) for part in parts)
    whole = crc32_of_parts(found.crc32s(), part_bytes=part_bytes, size_bytes=len(body))
    assert whole == zlib.crc32(body)


def test_a_crc_is_sent_as_four_bytes_the_first_of_them_first() -> None:
    # The check value of CRC-32: https://reveng.sourceforge.io/crc-catalogue/17plus.htm
    assert as_header(digest_of(b"123456789", BodyCheck.CRC32)) == "y/Q5Jg=="


@pytest.mark.parametrize(
    ("endpoint", "overheard"),
    [
        (None, False),
        ("https://s3.example", False),
        ("http://127.0.0.1:8333", False),
        ("http://[::1]:8333", False),
        ("http://localhost:8333", False),
        ("http://seaweedfs:8333", True),
        ("http://10.0.0.7:8333", True),
        ("http://127.0.0.1.example:8333", True),
    ],
)
def test_a_crc_is_a_guard_only_where_nobody_stands_between(
    endpoint: str | None, *, overheard: bool
) -> None:
    settings = S3Settings.model_validate(
        {"endpoint_url": endpoint, "access_key": "access", "secret_key": "secret"}
    )
    assert is_overheard(settings) is overheard
