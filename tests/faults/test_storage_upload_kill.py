"""The service is killed with SIGKILL in the middle of an upload in parts, and started again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from shared.contracts.storage_events import MediaStored, MigrationCompleted
from shared.object_store.s3 import SINGLE_PUT_BYTES
from shared.object_store.uploads import PART_BYTES
from tests.storage_process import storage_process, wire
from tests.storage_scene import Scene, open_scene, port_of
from tests.storage_world import DEADLINE_S
from velro.stack.seaweedfs import s3_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from velro.stack.seaweedfs import S3Address

FTYP = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41"
SIZE_BYTES = SINGLE_PUT_BYTES + PART_BYTES
STALE = {"VELRO_S3_STALE_UPLOAD_S": "1"}


@pytest.fixture
async def scene(  # noqa: PLR0917 - pytest hands fixtures over by name
    nats_url: str,
    subject_root: str,
    stream: str,
    database: str,
    bucket: S3Address,
    tmp_path: Path,
) -> AsyncGenerator[Scene]:
    async with open_scene(
        nats_url=nats_url,
        subject_root=subject_root,
        stream=stream,
        database=database,
        bucket=bucket,
        spool=tmp_path,
    ) as opened:
        yield opened


async def film(_request: web.Request) -> web.StreamResponse:
    return web.Response(body=FTYP + bytes(SIZE_BYTES - len(FTYP)))


async def unfinished(bucket: S3Address) -> list[str]:
    """The keys of uploads that nobody has completed."""

    def read() -> list[str]:
        client = s3_client(bucket)
        listed = client.list_multipart_uploads(Bucket=bucket.bucket)
        client.close()
        return [
            str(upload["Key"])
            for upload in listed.get("Uploads", [])
            if str(upload["Key"]).startswith("ann/")
        ]

    return await asyncio.to_thread(read)


async def sizes(bucket: S3Address) -> list[int]:
    def read() -> list[int]:
        client = s3_client(bucket)
        listed = client.list_objects_v2(Bucket=bucket.bucket, Prefix="ann/")
        client.close()
        return [int(found["Size"]) for found in listed.get("Contents", [])]

    return await asyncio.to_thread(read)


async def test_a_worker_killed_in_an_upload_leaves_one_object_and_no_upload(scene: Scene) -> None:
    scene.media.answers["g-0.png"] = film
    await scene.completed("g")
    async with (
        wire(port_of(scene.bucket.endpoint_url), hold_requests=b"partNumber=3") as s3,
        storage_process(scene.through(s3=s3), "serve", quiet=True) as process,
    ):
        # The probe sends two parts, so that this is one of the film's.
        await s3.wait_caught()
        await process.kill()
    assert len(await unfinished(scene.bucket)) == 1
    assert await sizes(scene.bucket) == []
    async with storage_process(scene.env | STALE, "serve", quiet=True) as process:
        await scene.world.until_pending(0)
        async with asyncio.timeout(DEADLINE_S):
            while await unfinished(scene.bucket):  # noqa: ASYNC110 - S3 tells nobody of a sweep
                await asyncio.sleep(0.1)
        assert (await process.stop()).code == 0
    assert [type(event) for event in await scene.world.said("g")] == [
        MediaStored,
        MigrationCompleted,
    ]
    assert await sizes(scene.bucket) == [SIZE_BYTES]
