from __future__ import annotations

import asyncio
import io
import wave
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from shared.contracts.reasons import ReasonCode
from shared.media.copier import MediaCopier, media_copier
from shared.media.copying import CopyFailed, CopyOrder
from shared.media.settings import MediaSettings
from shared.object_store.s3 import SINGLE_PUT_BYTES, S3ObjectStore, s3_object_store
from shared.object_store.settings import S3Settings
from tests.hosts.hostile import HostileHost, answers, hangs, hostile_host
from tests.storage_media import picture
from velro.stack.seaweedfs import s3_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shared.contracts.facts import StoredObject
    from shared.object_store.port import Put, PutOrder
    from tests.servers.port import OwnS3
    from velro.stack.seaweedfs import S3Address

BODY = picture("fox")


@dataclass
class Copying:
    host: HostileHost
    copier: MediaCopier
    address: S3Address

    def order(self, url: str, *, dies_in: timedelta = timedelta(hours=1)) -> CopyOrder:
        return CopyOrder(
            generation_id="g1",
            output_index=3,
            user_id="ann@velro.example",
            provider="test",
            source_url=url,
            media_type="video/mp4",
            dies_at=datetime.now(UTC) + dies_in,
        )

    async def fails(self, order: CopyOrder) -> CopyFailed:
        with pytest.raises(CopyFailed) as failed:
            await self.copier.copy(order)
        return failed.value

    async def tried(self, order: CopyOrder) -> StoredObject | None:
        try:
            return await self.copier.copy(order)
        except CopyFailed as failed:
            if failed.reason is not ReasonCode.BUCKET_UNAVAILABLE:
                raise
            return None

    async def objects(self) -> dict[str, dict[str, Any]]:
        """What the bucket says of each object, looked at from outside."""

        def look() -> dict[str, dict[str, Any]]:
            client = s3_client(self.address)
            listed = client.list_objects_v2(Bucket=self.address.bucket).get("Contents", [])
            keys = [str(found["Key"]) for found in listed]
            found = {k: client.get_object(Bucket=self.address.bucket, Key=k) for k in keys}
            whole = {
                key: answer | {"bytes": answer["Body"].read()} for key, answer in found.items()
            }
            client.close()
            return whole

        return await asyncio.to_thread(look)


@asynccontextmanager
async def copying(
    address: S3Address, spool: Path, *, timeout_s: float = 10.0
) -> AsyncGenerator[Copying]:
    async with hostile_host() as host:
        media = MediaSettings(
            media_http_hosts=(host.host,), spool_dir=spool, media_timeout_s=timeout_s
        )
        s3 = S3Settings.model_validate(asdict(address) | {"timeout_s": 5.0})
        async with s3_object_store(s3) as store, media_copier(media, store) as copier:
            yield Copying(host, copier, address)


@pytest.fixture
async def plain(bucket: S3Address, tmp_path: Path) -> AsyncGenerator[Copying]:
    async with copying(bucket, tmp_path) as found:
        yield found


@pytest.mark.parametrize("path", ["/clip.mp4", "/page.html", "/x", "/a.svg", "/..%2f..%2fetc.png"])
async def test_type_and_extension_come_from_the_bytes_and_not_from_the_link(
    plain: Copying, path: str
) -> None:
    plain.host.does(answers(BODY, Content_Type="text/html"), path=path)
    stored = await plain.copier.copy(plain.order(plain.host.url(f"{path}?token=a.mp4&sig=%2F")))
    assert stored.media_type == "image/png"
    assert stored.key == f"ann@velro.example/g1/3-{stored.sha256[:16]}.png"
    assert (stored.width, stored.height) == (1, 1)
    ((key, found),) = (await plain.objects()).items()
    assert (key, found["bytes"], found["ContentType"]) == (stored.key, BODY, "image/png")


async def test_a_sound_has_its_duration_recorded(plain: Copying) -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(8000))
    stored = await plain.copier.copy(plain.order(plain.host.does(answers(file.getvalue()))))
    assert (stored.media_type, stored.duration_s, stored.width) == ("audio/wav", 0.5, None)


async def test_the_spool_file_of_a_large_one_is_given_up_while_it_is_sent(
    plain: Copying, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(SINGLE_PUT_BYTES))  # and a head: too much for a single put
    put, left = S3ObjectStore.put, list[int]()

    async def looked_at(store: S3ObjectStore, order: PutOrder) -> Put:
        came_to = await put(store, order)
        assert isinstance(order.path, Path)
        left.append(order.path.stat().st_size)
        return came_to

    monkeypatch.setattr(S3ObjectStore, "put", looked_at)
    stored = await plain.copier.copy(plain.order(plain.host.does(answers(file.getvalue()))))
    assert stored.size_bytes == len(file.getvalue())
    assert left == [0]


async def test_an_object_tells_where_it_came_from(plain: Copying) -> None:
    stored = await plain.copier.copy(plain.order(plain.host.does(answers(BODY))))
    told = (await plain.objects())[stored.key]["Metadata"]
    assert told["generation-id"] == "g1"
    assert told["output-index"] == "3"
    assert told["sha256"] == stored.sha256
    assert told["source-host"] == "127.0.0.1"
    assert datetime.fromisoformat(told["stored-at"]) <= datetime.now(UTC)


async def test_the_same_output_copied_by_many_at_once_is_one_object(plain: Copying) -> None:
    order = plain.order(plain.host.does(answers(BODY)))
    stored = await asyncio.gather(*(plain.copier.copy(order) for _ in range(8)))
    assert len(set(stored)) == 1
    assert list(await plain.objects()) == [stored[0].key]


@pytest.mark.parametrize("body", [b"<!doctype html><title>login</title>", b"<svg/>", b"PK\x03\x04"])
async def test_what_is_no_media_is_not_put(plain: Copying, body: bytes) -> None:
    failed = await plain.fails(plain.order(plain.host.does(answers(body))))
    assert failed.reason is ReasonCode.MEDIA_TYPE_REFUSED
    assert await plain.objects() == {}


async def test_a_download_ends_when_its_link_dies(plain: Copying) -> None:
    order = plain.order(plain.host.does(hangs), dies_in=timedelta(seconds=0.3))
    async with asyncio.timeout(5):
        assert (await plain.fails(order)).reason is ReasonCode.TOO_SLOW


async def test_a_link_that_outlived_its_promise_is_copied(plain: Copying) -> None:
    order = plain.order(plain.host.does(answers(BODY)), dies_in=timedelta(hours=-1))
    assert (await plain.copier.copy(order)).size_bytes == len(BODY)


async def test_a_link_that_outlived_its_promise_has_the_full_deadline_and_no_more(
    bucket: S3Address, tmp_path: Path
) -> None:
    async with copying(bucket, tmp_path, timeout_s=0.3) as found:
        order = found.order(found.host.does(hangs), dies_in=timedelta(hours=-1))
        failed = await found.fails(order)
    assert failed.reason is ReasonCode.TOO_SLOW
    assert "0.3 s" in failed.detail


async def test_a_bucket_that_is_away_is_the_buckets_failure_and_heals(
    own_s3: OwnS3, tmp_path: Path
) -> None:
    async with copying(own_s3.address, tmp_path) as found:
        order = found.order(found.host.does(answers(BODY)))
        await asyncio.to_thread(own_s3.server.stop)
        assert (await found.fails(order)).reason is ReasonCode.BUCKET_UNAVAILABLE
        await asyncio.to_thread(own_s3.server.start)
        # It answers a little before it takes objects again.
        async with asyncio.timeout(20):
            while (stored := await found.tried(order)) is None:
                pass
    assert stored.size_bytes == len(BODY)


async def test_wrong_keys_to_the_bucket_are_said_to_be_that(
    bucket: S3Address, tmp_path: Path
) -> None:
    async with copying(replace(bucket, secret_key="wrong"), tmp_path) as found:
        failed = await found.fails(found.order(found.host.does(answers(BODY))))
    assert failed.reason is ReasonCode.CREDENTIALS_REFUSED


async def test_cancelling_a_copy_leaves_nothing(plain: Copying, tmp_path: Path) -> None:
    running = asyncio.create_task(plain.copier.copy(plain.order(plain.host.does(hangs))))
    await asyncio.wait({running}, timeout=0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    corners = [path for path in tmp_path.glob("velro-*") if path.is_dir()]  # noqa: ASYNC240 - a glance at a local folder
    assert [list(corner.iterdir()) for corner in corners] == [[]]
    assert await plain.objects() == {}
