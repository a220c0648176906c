"""One behaviour on two S3 services: one that does all, and one that does less than it says."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import ssl
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from shared.contracts.reasons import ReasonCode
from shared.media.hashes import Hashes
from shared.object_store.clients import S3Clients, s3_clients
from shared.object_store.port import Put, StoreFailed
from shared.object_store.s3 import SINGLE_PUT_BYTES, S3ObjectStore, s3_object_store
from shared.object_store.uploads import PART_BYTES
from shared.object_store.wire import Answer, Wire, wire_pool
from shared.tls import CertificatesUnreadable
from tests.guarded_nats import Issuer
from tests.object_stores import (
    PNG,
    an_order,
    as_stored,
    rclone_s3,
    settings_for,
)
from velro.stack.seaweedfs import s3_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from types_aiobotocore_s3.type_defs import HeadObjectOutputTypeDef

    from shared.object_store.port import PutOrder
    from shared.object_store.settings import S3Settings
    from velro.stack.seaweedfs import S3Address

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[S3Address]:
    with rclone_s3(tmp_path_factory.mktemp("rclone")) as address:
        yield address


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return Issuer(tmp_path_factory.mktemp("issuer"))


@pytest.fixture(scope="module")
def rclone_over_tls(
    tmp_path_factory: pytest.TempPathFactory, issuer: Issuer
) -> Generator[S3Address]:
    with rclone_s3(tmp_path_factory.mktemp("rclone-tls"), issuer) as address:
        yield address


def with_new_bucket(address: S3Address) -> S3Address:
    """An empty bucket for one test alone."""
    address = replace(address, bucket=f"t{secrets.token_hex(6)}")
    client = s3_client(address)
    client.create_bucket(Bucket=address.bucket)
    client.close()
    return address


@pytest.fixture
def rclone(rclone_server: S3Address) -> S3Address:
    return with_new_bucket(rclone_server)


@pytest.fixture
def encrypted(rclone_over_tls: S3Address, issuer: Issuer) -> S3Address:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_CA_BUNDLE", str(issuer.ca_file))  # for boto3 alone
        return with_new_bucket(rclone_over_tls)


@pytest.fixture(params=["bucket", "rclone", "encrypted"])
def address(
    request: pytest.FixtureRequest, bucket: S3Address, rclone: S3Address, encrypted: S3Address
) -> S3Address:
    return {"bucket": bucket, "rclone": rclone, "encrypted": encrypted}[request.param]


@pytest.fixture
def settings(address: S3Address, issuer: Issuer) -> S3Settings:
    return settings_for(address, ca_file=issuer.ca_file)


class CountingWire(Wire):
    def __init__(self, *args: Any) -> None:  # noqa: ANN401 - as below
        super().__init__(*args)
        self.counts: Counter[str] = Counter()
        self.first_part: asyncio.Event | None = None
        # Called when a part is about to be sent.
        self.at_part: Callable[[], None] = lambda: None

    async def send(self, what: str, *args: Any, **more: Any) -> Answer:  # noqa: ANN401 - all that it is given
        self.counts[what] += 1
        if what == "UploadPart":
            self.at_part()
            if self.first_part is not None:
                self.first_part.set()
        return await super().send(what, *args, **more)


@dataclass(frozen=True)
class Scene:
    """A store, and the clients underneath to look past it."""

    store: S3ObjectStore
    clients: S3Clients
    wire: CountingWire

    def sent(self) -> Counter[str]:
        """Counts what the store asks for from now on, by name."""
        self.wire.counts = Counter()
        return self.wire.counts

    async def unfinished(self) -> list[str]:
        """The keys of uploads that are neither completed nor aborted."""
        listed = await self.clients.plain.list_multipart_uploads(Bucket=self.store.bucket)
        return [upload.get("Key", "") for upload in listed.get("Uploads", [])]

    async def head(self, key: str) -> HeadObjectOutputTypeDef:
        """All that the service says of an object."""
        return await self.clients.plain.head_object(Bucket=self.store.bucket, Key=key)


@asynccontextmanager
async def a_scene(settings: S3Settings) -> AsyncGenerator[Scene]:
    async with s3_clients(settings) as clients, wire_pool(settings) as pool:
        wire = CountingWire(pool, clients, settings)
        yield Scene(S3ObjectStore(clients, wire, settings), clients, wire)


@pytest.fixture(params=["probed", "not probed"])
async def scene(request: pytest.FixtureRequest, settings: S3Settings) -> AsyncGenerator[Scene]:
    async with a_scene(settings) as scene:
        if request.param == "probed":
            await scene.store.learn()
        yield scene


@pytest.fixture
def store(scene: Scene) -> S3ObjectStore:
    return scene.store


async def bytes_at(store: S3ObjectStore, key: str) -> bytes:
    return b"".join([piece async for piece in store.read(key)])


async def test_an_object_has_its_bytes_and_says_what_they_are(scene: Scene, tmp_path: Path) -> None:
    store = scene.store
    order = an_order(tmp_path, PNG + b"said")
    assert await store.put(order) is Put.STORED
    assert await bytes_at(store, order.key) == PNG + b"said"
    found = await scene.head(order.key)
    assert found["ContentType"] == "image/png"
    assert found["CacheControl"] == "public, max-age=31536000, immutable"
    assert found["ContentDisposition"].startswith("inline")
    assert found["Metadata"] == {
        "generation-id": "generation-1",
        "output-index": "0",
        "sha256": order.sha256,
        "x-content-type-options": "nosniff",
    }


async def test_a_repeat_changes_nothing(scene: Scene, tmp_path: Path) -> None:
    store = scene.store
    order = an_order(tmp_path, PNG + b"twice")
    await store.put(order)
    first = await scene.head(order.key)
    assert await store.put(order) is Put.ALREADY_THERE
    second = await scene.head(order.key)
    assert second["LastModified"] == first["LastModified"]


async def test_a_large_file_that_is_there_is_not_sent_again(scene: Scene, tmp_path: Path) -> None:
    store = scene.store
    order = an_order(tmp_path, PNG + bytes(9 * MIB))
    await store.put(order)
    counts = scene.sent()
    assert await store.put(order) is Put.ALREADY_THERE
    assert counts == {"HeadObject": 1}


@pytest.mark.parametrize("probed", [True, False])
async def test_two_puts_at_the_same_moment_make_one_object(
    bucket: S3Address, tmp_path: Path, *, probed: bool
) -> None:
    # Not on rclone: it answers two puts of one key at once with 500s, and lists the key twice.
    order = an_order(tmp_path, PNG + b"both")
    # SeaweedFS looks once a second whether it may check the condition of the next one: the last of
    # so many is answered after up to four of them, sooner than a bucket is given up by default.
    async with s3_object_store(settings_for(bucket, timeout_s=30.0)) as store:
        if probed:
            await store.learn()
        outcomes = await asyncio.gather(*(store.put(order) for _ in range(4)))
        assert Put.STORED in outcomes
        assert not probed or outcomes.count(Put.STORED) == 1
        assert [key async for key in store.keys("ann/")] == [order.key]
        assert await bytes_at(store, order.key) == PNG + b"both"


async def test_other_bytes_at_the_key_are_replaced(scene: Scene, tmp_path: Path) -> None:
    store = scene.store
    order = an_order(tmp_path, PNG + b"right")
    await scene.clients.plain.put_object(Bucket=store.bucket, Key=order.key, Body=b"wrong")
    assert await store.put(order) is Put.STORED
    assert await bytes_at(store, order.key) == PNG + b"right"


async def test_a_deleted_object_is_gone_and_deleting_it_again_is_no_error(
    store: S3ObjectStore, tmp_path: Path
) -> None:
    order = an_order(tmp_path, PNG + b"gone")
    await store.put(order)
    await store.delete(order.key)
    await store.delete(order.key)
    assert await store.head(order.key) is None


async def test_bytes_that_changed_on_the_way_are_not_stored(
    settings: S3Settings, tmp_path: Path
) -> None:
    order = an_order(tmp_path, PNG + b"meant")
    assert isinstance(order.path, Path)
    order.path.write_bytes(PNG + b"other")  # the disk lies: as many bytes, and not the same
    async with s3_object_store(settings.model_copy(update={"verify": "full"})) as store:
        await store.learn()
        with pytest.raises(StoreFailed) as failed:
            await store.put(order)
    assert failed.value.reason is ReasonCode.CHECKSUM_MISMATCH


@pytest.mark.parametrize("size_bytes", [2 * MIB, SINGLE_PUT_BYTES + 2 * MIB])
async def test_what_the_disk_did_to_a_file_since_it_came_is_found_out(
    bucket: S3Address, tmp_path: Path, size_bytes: int
) -> None:
    body = PNG + bytes(size_bytes)
    found = Hashes()
    found.update(body)
    order = replace(an_order(tmp_path, body), crc32s=found.crc32s())
    assert isinstance(order.path, Path)
    order.path.write_bytes(PNG + bytes(size_bytes - 1) + b"!")
    async with s3_object_store(settings_for(bucket)) as store:
        await store.learn()
        with pytest.raises(StoreFailed) as failed:
            await store.put(order)
    assert failed.value.reason is ReasonCode.CHECKSUM_MISMATCH


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> PutOrder:
    """A file of four parts and a bit, no two of which are alike."""
    pieces = (bytes([number]) * PART_BYTES for number in range(4))
    body = b"".join((*pieces, b"the end"))
    return replace(an_order(tmp_path_factory.mktemp("film"), body), media_type="video/mp4")


async def test_a_large_file_goes_in_parts_and_is_one_object(scene: Scene, film: PutOrder) -> None:
    store = scene.store
    await store.delete(film.key)
    counts = scene.sent()
    assert await store.put(film) is Put.STORED
    assert counts["UploadPart"] == 5
    assert counts["PutObject"] == 0
    digest = hashlib.sha256()
    async for piece in store.read(film.key):
        digest.update(piece)
    assert digest.hexdigest() == film.sha256
    assert await scene.unfinished() == []
    head = await store.head(film.key)
    assert head is not None
    assert (head.media_type, head.sha256) == ("video/mp4", film.sha256)
    assert isinstance(film.path, Path)
    assert film.path.stat().st_size == film.size_bytes
    await store.delete(film.key)


async def test_what_was_sent_of_a_spent_file_is_cut_off_while_the_rest_is_sent(
    settings: S3Settings, film: PutOrder, tmp_path: Path
) -> None:
    assert isinstance(film.path, Path)
    spent = tmp_path / "spent"
    spent.write_bytes(film.path.read_bytes())
    sizes: list[int] = []
    async with a_scene(settings.model_copy(update={"parts_at_once": 1})) as scene:
        await scene.store.delete(film.key)
        scene.wire.at_part = lambda: sizes.append(spent.stat().st_size)
        assert await scene.store.put(replace(film, path=spent, spent=True)) is Put.STORED
        found = await bytes_at(scene.store, film.key)
        assert hashlib.sha256(found).hexdigest() == film.sha256
        await scene.store.delete(film.key)
    assert sizes == [film.size_bytes, *(number * PART_BYTES for number in (4, 3, 2, 1))]
    assert spent.stat().st_size == 0


async def test_an_upload_that_is_cancelled_leaves_nothing(scene: Scene, film: PutOrder) -> None:
    store = scene.store
    await store.delete(film.key)
    begun = asyncio.Event()

    scene.wire.first_part = begun
    putting = asyncio.create_task(store.put(film))
    await asyncio.wait_for(begun.wait(), 10)
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert await scene.unfinished() == []
    assert await store.head(film.key) is None


async def test_uploads_that_a_dead_process_left_are_swept_and_no_others(scene: Scene) -> None:
    store, client = scene.store, scene.clients.plain
    ours, theirs = "ann/generation-1/0-0123456789abcdef.mp4", "backups/theirs.tar"
    for key in (ours, theirs):
        await client.create_multipart_upload(Bucket=store.bucket, Key=key)
    now = datetime.now(UTC)
    assert await store.sweep_stale_uploads(begun_before=now - timedelta(hours=1)) == 0
    assert await store.sweep_stale_uploads(begun_before=now + timedelta(hours=1)) == 1
    assert await scene.unfinished() == [theirs]
    listed = await client.list_multipart_uploads(Bucket=store.bucket)
    for upload in listed.get("Uploads", []):
        await client.abort_multipart_upload(
            Bucket=store.bucket, Key=theirs, UploadId=upload.get("UploadId", "")
        )


async def test_a_signed_url_lets_a_reader_in_and_a_changed_one_does_not(
    store: S3ObjectStore, issuer: Issuer, tmp_path: Path
) -> None:
    order = an_order(tmp_path, PNG + b"read me")
    await store.put(order)
    url = await store.url(as_stored(store.bucket, order))
    tls = ssl.create_default_context(cafile=issuer.ca_file)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as reader:
        async with reader.get(url) as answer:
            assert await answer.read() == PNG + b"read me"
            assert answer.content_type == "image/png"
        async with reader.get(url[:-4] + "0000") as answer:
            assert answer.status == 403


async def test_issuers_that_cannot_be_read_are_told_by_their_variable(
    bucket: S3Address, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("none")
    with pytest.raises(CertificatesUnreadable, match=re.escape(f"VELRO_S3_CA_FILE, {file}: ")):
        async with s3_object_store(settings_for(bucket, ca_file=file)):
            pass


async def test_a_public_url_is_below_its_base(bucket: S3Address, tmp_path: Path) -> None:
    public = settings_for(bucket, url_mode="public", public_base_url="https://cdn.example/media/")
    async with s3_object_store(public) as store:
        order = an_order(tmp_path)
        url = urlsplit(await store.url(as_stored(store.bucket, order)))
    assert (url.netloc, url.path) == ("cdn.example", f"/media/{order.key}")
