"""A bucket's list, on SeaweedFS and on rclone: every object once, with size and age."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from shared.contracts.reasons import ReasonCode
from shared.object_store.clients import s3_clients
from shared.object_store.port import Listed, StoreFailed
from shared.object_store.s3 import s3_object_store
from tests.object_stores import rclone_s3, settings_for

if TYPE_CHECKING:
    from pathlib import Path

    from shared.object_store.settings import S3Settings
    from velro.stack.seaweedfs import S3Address


async def listed(settings: S3Settings, prefix: str = "") -> list[list[Listed]]:
    async with s3_object_store(settings) as store:
        return [page async for page in store.pages(prefix)]


async def filled(settings: S3Settings, names: list[str]) -> None:
    async with s3_clients(settings) as clients:
        putting = asyncio.Semaphore(16)

        async def put(number: int, name: str) -> None:
            async with putting:
                await clients.plain.put_object(
                    Bucket=settings.bucket, Key=name, Body=b"x" * (number % 7)
                )

        await asyncio.gather(*(put(number, name) for number, name in enumerate(names)))


async def test_a_list_of_several_pages_holds_every_object_once(bucket: S3Address) -> None:
    settings = settings_for(bucket)
    names = [f"ann/g{number}/0.png" for number in range(1001)] + ["bob+a&b <c>/ü %41/0.png"]
    await filled(settings, names)
    pages = await listed(settings)
    assert len(pages) == 2
    found = [one for page in pages for one in page]
    assert sorted(one.key for one in found) == sorted(names)
    sizes = {one.key: one.size_bytes for one in found}
    assert sizes == {name: number % 7 for number, name in enumerate(names)}
    now = datetime.now(UTC)
    assert all(abs(now - one.modified_at) < timedelta(minutes=5) for one in found)


async def test_a_list_below_a_prefix_holds_nothing_else(bucket: S3Address) -> None:
    settings = settings_for(bucket)
    await filled(settings, ["ann/g/0.png", "anna/g/0.png", "bob/g/0.png"])
    (page,) = await listed(settings, "ann/")
    assert [one.key for one in page] == ["ann/g/0.png"]


async def test_rclone_lists_alike(tmp_path: Path) -> None:
    with rclone_s3(tmp_path) as address:
        await filled(settings_for(address), ["ann/g/0.png", "bob/a b+c/0.png"])
        (page,) = await listed(settings_for(address))
        assert sorted(one.key for one in page) == ["ann/g/0.png", "bob/a b+c/0.png"]


async def test_an_empty_bucket_has_no_pages(bucket: S3Address) -> None:
    assert await listed(settings_for(bucket)) == []


async def test_a_bucket_that_is_not_there_is_an_error_and_not_empty(bucket: S3Address) -> None:
    settings = settings_for(replace(bucket, bucket=f"t{secrets.token_hex(6)}"))
    said = f"there is no bucket {settings.bucket} at {settings.endpoint_url}: make it, or set"
    with pytest.raises(StoreFailed, match=said):
        await listed(settings)
    async with s3_object_store(settings) as store:
        with pytest.raises(StoreFailed, match=said):
            await anext(store.keys(), None)
        with pytest.raises(StoreFailed, match=said):
            await store.learn()


async def test_refused_credentials_are_told_from_an_outage(bucket: S3Address) -> None:
    said = f"the bucket {bucket.bucket} at .* refuses our keys .*: set VELRO_S3_ACCESS_KEY"
    with pytest.raises(StoreFailed, match=said) as refused:
        await listed(settings_for(bucket, secret_key="another"))
    assert refused.value.reason is ReasonCode.CREDENTIALS_REFUSED
    assert "<Error>" not in str(refused.value)


async def test_a_service_that_is_away_is_named_with_its_bucket(bucket: S3Address) -> None:
    settings = settings_for(replace(bucket, endpoint_url="http://127.0.0.1:1"))
    said = f"the bucket {bucket.bucket} at http://127.0.0.1:1/ cannot be used .*: see that"
    with pytest.raises(StoreFailed, match=said):
        await listed(settings)
    async with s3_object_store(settings) as store:
        with pytest.raises(StoreFailed, match=said):
            await anext(store.keys(), None)
