"""What a bucket can do is found out by doing it, and what it cannot is said."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from shared.contracts.reasons import ReasonCode
from shared.object_store import attended
from shared.object_store.attended import attended_bucket
from shared.object_store.capabilities import BodyCheck
from shared.object_store.port import Put, StoreFailed
from shared.object_store.s3 import s3_object_store
from tests.object_stores import PNG, an_order, rclone_s3, settings_for, told_s3

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from tests.object_stores import ToldS3
    from tests.servers.port import OwnS3
    from velro.stack.seaweedfs import S3Address


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Generator[S3Address]:
    with rclone_s3(tmp_path_factory.mktemp("rclone")) as address:
        yield address


@pytest.fixture
async def told() -> AsyncGenerator[ToldS3]:
    async with told_s3() as service:
        yield service


async def test_seaweedfs_does_all(bucket: S3Address) -> None:
    async with s3_object_store(settings_for(bucket)) as store:
        found = await store.learn()
    assert not found.degraded, found.reasons
    assert found.conditional_put
    assert found.checksum_trailers
    assert found.multipart
    assert found.signed_urls
    assert found.body_check is BodyCheck.CRC32
    assert found.part_check is BodyCheck.CRC32
    assert abs(found.clock_skew_s) < 5


async def test_rclone_does_less_and_each_lack_is_a_sentence(rclone: S3Address) -> None:
    async with s3_object_store(settings_for(rclone)) as store:
        found = await store.learn()
    assert not found.conditional_put
    assert found.body_check is BodyCheck.MD5
    assert found.part_check is BodyCheck.MD5
    assert found.multipart
    assert found.signed_urls
    assert found.reasons == (
        "it ignores If-None-Match: each put is preceded by a look",
        "it compares no SHA-256 to the body: each body is hashed for MD5",
    )


async def test_a_probe_leaves_nothing_behind(bucket: S3Address, rclone: S3Address) -> None:
    for address in (bucket, rclone):
        async with s3_object_store(settings_for(address)) as store:
            await store.learn()
            assert [key async for key in store.keys("velro-probe/")] == []


async def test_a_bucket_that_is_missing_is_not_made(bucket: S3Address) -> None:
    missing = replace(bucket, bucket=f"{bucket.bucket}-missing")
    async with s3_object_store(settings_for(missing)) as store:
        for _ in range(2):
            with pytest.raises(StoreFailed) as failed:
                await store.learn()
            assert failed.value.reason is ReasonCode.BUCKET_UNAVAILABLE


@pytest.mark.parametrize("changed", [{"secret_key": "wrong"}, {"access_key": "nobody"}])
async def test_credentials_that_are_refused_are_named_so(
    bucket: S3Address, changed: dict[str, str], tmp_path: Path
) -> None:
    async with s3_object_store(settings_for(bucket, **changed)) as store:
        with pytest.raises(StoreFailed) as failed:
            await store.learn()
        assert failed.value.reason is ReasonCode.CREDENTIALS_REFUSED
        with pytest.raises(StoreFailed) as failed:
            await store.put(an_order(tmp_path))
        assert failed.value.reason is ReasonCode.CREDENTIALS_REFUSED


async def test_a_bucket_that_is_away_is_probed_when_it_is_back(
    own_s3: OwnS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(attended, "LEARN_AGAIN_S", 0.05)
    await asyncio.to_thread(own_s3.server.stop)
    order = an_order(tmp_path)
    async with attended_bucket(settings_for(own_s3.address), sweeping=True) as store:
        with pytest.raises(StoreFailed) as failed:
            await store.put(order)
        assert failed.value.reason is ReasonCode.BUCKET_UNAVAILABLE
        assert store.capabilities is None
        await asyncio.to_thread(own_s3.server.start)
        found = await asyncio.wait_for(store.learned(), 20)
        assert found.conditional_put
        assert await store.put(order) is Put.STORED


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (403, "AccessDenied", ReasonCode.CREDENTIALS_REFUSED),
        (403, "RequestTimeTooSkewed", ReasonCode.CREDENTIALS_REFUSED),
        (400, "ExpiredToken", ReasonCode.CREDENTIALS_REFUSED),
        (507, "InsufficientStorage", ReasonCode.BUCKET_FULL),
        (403, "QuotaExceeded", ReasonCode.BUCKET_FULL),
        (507, "XMinioStorageFull", ReasonCode.BUCKET_FULL),
        (400, "BadDigest", ReasonCode.CHECKSUM_MISMATCH),
        (400, "XAmzContentSHA256Mismatch", ReasonCode.CHECKSUM_MISMATCH),
        (503, "SlowDown", ReasonCode.BUCKET_UNAVAILABLE),
        (500, "InternalError", ReasonCode.BUCKET_UNAVAILABLE),
        (404, "NoSuchBucket", ReasonCode.BUCKET_UNAVAILABLE),
        (409, "OperationAborted", ReasonCode.BUCKET_UNAVAILABLE),
    ],
)
async def test_what_a_service_says_becomes_a_reason(
    told: ToldS3, tmp_path: Path, status: int, code: str, reason: ReasonCode
) -> None:
    told.refusals["PUT"] = (status, code)
    async with s3_object_store(settings_for(told.address)) as store:
        with pytest.raises(StoreFailed) as failed:
            await store.put(an_order(tmp_path))
    assert failed.value.reason is reason
    assert code in failed.value.detail
    assert told.methods == ["HEAD", "PUT"], "the caller has the policy for retries"


async def test_a_service_that_keeps_less_than_it_was_given_is_found_out(
    told: ToldS3, tmp_path: Path
) -> None:
    told.swallow_bytes = 1
    async with s3_object_store(settings_for(told.address)) as store:
        with pytest.raises(StoreFailed) as failed:
            await store.put(an_order(tmp_path, PNG + b"whole"))
    assert failed.value.reason is ReasonCode.CHECKSUM_MISMATCH


async def test_a_service_that_never_answers_is_not_waited_for(told: ToldS3, tmp_path: Path) -> None:
    told.silent.add("PUT")
    async with s3_object_store(settings_for(told.address, timeout_s=0.3)) as store:
        with pytest.raises(StoreFailed) as failed:
            await asyncio.wait_for(store.put(an_order(tmp_path)), 10)
    assert failed.value.reason is ReasonCode.BUCKET_UNAVAILABLE


async def test_a_service_that_takes_changed_bodies_is_read_back(
    told: ToldS3, tmp_path: Path
) -> None:
    async with s3_object_store(settings_for(told.address)) as store:
        found = await store.learn()
        assert found.body_check is BodyCheck.NONE
        assert not found.multipart
        told.methods.clear()
        order = an_order(tmp_path)
        assert await store.put(order) is Put.STORED
        assert told.methods == ["HEAD", "PUT", "HEAD", "GET"]
        told.garble = True
        with pytest.raises(StoreFailed) as failed:
            await store.put(an_order(tmp_path, PNG + b"two"))
    assert failed.value.reason is ReasonCode.CHECKSUM_MISMATCH
