"""The service is killed with SIGKILL at every step of a copy, and started again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from shared.contracts.storage_events import MediaStored, MigrationCompleted
from tests.storage_media import picture
from tests.storage_process import run, storage_process, wire
from tests.storage_scene import Scene, open_scene, port_of
from tests.storage_world import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from velro.stack.seaweedfs import S3Address

NAME = "g-0.png"
FTYP = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41"
# More than is held in memory, and less than goes in parts.
FILM = FTYP + bytes(range(256)) * 16_384


async def healed(scene: Scene, body: bytes = picture(NAME), media_type: str = "image/png") -> None:
    """A new process finishes what the killed one began: one object, one event."""
    async with storage_process(scene.env, "serve", quiet=True) as process:
        await scene.world.until_pending(0)
        assert (await process.stop()).code == 0
    said = await scene.world.said("g")
    assert [type(event) for event in said] == [MediaStored, MigrationCompleted]
    (stored,) = [event for event in said if isinstance(event, MediaStored)]
    assert await scene.objects() == {stored.object.key: (body, media_type)}


def files_in(spool: Path) -> list[Path]:
    return [path for path in spool.rglob("*") if path.is_file()]


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


async def test_a_worker_killed_in_the_download_stores_the_object_once(
    scene: Scene, tmp_path: Path
) -> None:
    halfway, over = asyncio.Event(), asyncio.Event()

    async def half_of_it(request: web.Request) -> web.StreamResponse:
        body = picture(NAME)
        answer = web.StreamResponse(headers={"Content-Length": str(len(body))})
        await answer.prepare(request)
        await answer.write(body[: len(body) // 2])
        halfway.set()
        await over.wait()
        return answer

    scene.media.answers[NAME] = half_of_it
    await scene.completed("g")
    async with storage_process(scene.env, "serve", quiet=True) as process:
        await asyncio.wait_for(halfway.wait(), DEADLINE_S)
        await process.kill()
    over.set()
    assert await scene.objects() == {}
    del scene.media.answers[NAME]
    await healed(scene)
    left = await asyncio.to_thread(files_in, tmp_path)
    assert not left, "the spool is swept, and removed at the end"


async def test_a_worker_killed_with_a_film_half_in_its_spool_stores_it_once_and_leaves_no_file(
    scene: Scene, tmp_path: Path
) -> None:
    over = asyncio.Event()

    async def half_of_it(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": str(len(FILM))})
        await answer.prepare(request)
        await answer.write(FILM[: len(FILM) // 2])
        await over.wait()
        return answer

    async def whole(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=FILM)

    def spooled() -> list[Path]:
        return [path for path in files_in(tmp_path) if not path.suffix and path.stat().st_size]

    scene.media.answers[NAME] = half_of_it
    await scene.completed("g")
    async with storage_process(scene.env, "serve", quiet=True) as process:
        async with asyncio.timeout(DEADLINE_S):
            while not await asyncio.to_thread(spooled):  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.05)
        await process.kill()
    over.set()
    (left,) = await asyncio.to_thread(spooled)
    assert left.stat().st_size < len(FILM)
    scene.media.answers[NAME] = whole
    await healed(scene, FILM, "video/mp4")
    assert not await asyncio.to_thread(files_in, tmp_path)


async def test_a_worker_killed_before_the_put_stores_the_object_once(scene: Scene) -> None:
    await scene.completed("g")
    async with (
        wire(
            port_of(scene.bucket.endpoint_url),
            hold_requests=b"PUT /" + scene.bucket.bucket.encode() + b"/ann/",
        ) as s3,
        storage_process(scene.through(s3=s3), "serve", quiet=True) as process,
    ):
        await s3.wait_caught()
        await process.kill()
    assert await scene.objects() == {}
    await healed(scene)


async def test_a_worker_killed_after_the_put_stores_the_object_once(scene: Scene) -> None:
    await scene.completed("g")
    # A picture's last bytes: the service's headers wait for a "100 Continue" before the body.
    async with (
        wire(port_of(scene.bucket.endpoint_url), hold_answers=b"IEND") as s3,
        storage_process(scene.through(s3=s3), "serve", quiet=True) as process,
    ):
        await s3.wait_caught()
        async with asyncio.timeout(DEADLINE_S):
            while not await scene.objects():  # noqa: ASYNC110 - S3 tells nobody of a put
                await asyncio.sleep(0.05)
        await process.kill()
    assert await scene.world.said("g") == []
    await healed(scene)


async def test_a_worker_killed_at_its_look_at_what_it_put_stores_the_object_once(
    scene: Scene,
) -> None:
    await scene.completed("g")
    async with (
        wire(
            port_of(scene.bucket.endpoint_url),
            hold_after=b"IEND",
            hold_requests=b"HEAD /" + scene.bucket.bucket.encode() + b"/ann/",
        ) as s3,
        storage_process(scene.through(s3=s3), "serve", quiet=True) as process,
    ):
        await s3.wait_caught()
        await process.kill()
    assert len(await scene.objects()) == 1
    assert await scene.world.said("g") == []
    await healed(scene)


async def test_a_worker_killed_before_the_append_stores_the_object_once(scene: Scene) -> None:
    await scene.completed("g")
    append = f"HPUB {scene.subject_root}.storage.g".encode()
    async with (
        wire(port_of(scene.env["VELRO_NATS_URL"]), hold_requests=append) as nats,
        storage_process(scene.through(nats=nats), "serve", quiet=True) as process,
    ):
        await nats.wait_caught()
        await process.kill()
    assert len(await scene.objects()) == 1
    assert await scene.world.said("g") == []
    await healed(scene)


async def test_a_worker_killed_after_the_append_stores_the_object_once(scene: Scene) -> None:
    await scene.completed("g")
    async with (
        wire(port_of(scene.env["VELRO_NATS_URL"]), hold_answers=b"Nats-Batch-Commit") as nats,
        storage_process(scene.through(nats=nats), "serve", quiet=True) as process,
    ):
        await nats.wait_caught()
        async with asyncio.timeout(DEADLINE_S):
            while not await scene.world.said("g"):  # noqa: ASYNC110 - no consumer but this
                await asyncio.sleep(0.05)
        await process.kill()
    await healed(scene)


async def test_two_services_at_once_store_each_object_once(scene: Scene) -> None:
    for number in range(20):
        await scene.completed(f"g{number}", outputs=2)
    # Nobody is killed, so a lease may last: on a busy machine 3 s end beneath a copy.
    env = scene.env | {"VELRO_STORAGE_LEASE_S": "60"}
    async with (
        storage_process(env, "serve", quiet=True),
        storage_process(env, "serve", quiet=True),
    ):
        await scene.world.until_pending(0)
    for number in range(20):
        said = await scene.world.said(f"g{number}")
        assert sorted(type(event).__name__ for event in said) == [
            "MediaStored",
            "MediaStored",
            "MigrationCompleted",
        ]
    assert set(scene.media.requests.values()) == {1}, "nothing was downloaded twice"
    assert len(await scene.objects()) == 40


async def test_two_processes_at_one_output_in_the_same_moment_store_it_once(scene: Scene) -> None:
    both = asyncio.Event()

    async def when_both_ask(_request: web.Request) -> web.StreamResponse:
        if scene.media.requests[NAME] == 2:
            both.set()
        await both.wait()
        return web.Response(body=picture(NAME), content_type="image/png")

    scene.media.answers[NAME] = when_both_ask
    await scene.completed("g")
    async with storage_process(scene.env, "serve", quiet=True):
        await scene.media.requested(NAME, 1, timeout_s=60.0)
        # A person does not wait for anybody's lease.
        ended = await run(scene.env, "retry", "g")
        assert ended.code == 0, ended.err
        await scene.world.until_pending(0)
    assert [type(event) for event in await scene.world.said("g")] == [
        MediaStored,
        MigrationCompleted,
    ]
    assert list((await scene.objects()).values()) == [(picture(NAME), "image/png")]


async def test_a_service_beside_a_killed_one_takes_over_its_work(scene: Scene) -> None:
    await scene.completed("g")
    async with (
        wire(
            port_of(scene.bucket.endpoint_url),
            hold_requests=b"PUT /" + scene.bucket.bucket.encode() + b"/ann/",
        ) as s3,
        storage_process(scene.through(s3=s3), "serve", quiet=True) as process,
    ):
        await s3.wait_caught()
        async with storage_process(scene.env, "serve", quiet=True):
            await process.kill()
            await scene.world.until_pending(0)
    assert scene.media.requests[NAME] == 2
    assert len(await scene.objects()) == 1
