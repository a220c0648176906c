"""Sources and buckets that fail for real, and what the log says about each."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from botocore.exceptions import ClientError

from shared.contracts.reasons import ReasonCode
from shared.contracts.storage_events import MediaLost, MediaStored, MigrationAttemptFailed
from storage_svc.application.backlog import OutputRef
from storage_svc.application.store_output import FailedNow, LostNow, StoredNow
from tests.object_stores import told_s3
from tests.storage_media import media_server, picture
from tests.storage_world import now
from velro.stack.ports import choose
from velro.stack.seaweedfs import SeaweedServer, s3_client

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.servers.port import OwnS3
    from tests.storage_scene import Scene
    from velro.stack.seaweedfs import S3Address

OUTPUT = OutputRef("g", 0)
NAME = "g-0.png"
PAST = timedelta(seconds=-5)


def filled(address: S3Address) -> None:
    """Put until no more is taken."""
    client = s3_client(address)
    with contextlib.closing(client):
        for number in range(50):
            try:
                client.put_object(Bucket=address.bucket, Key=f"full/{number}", Body=bytes(500_000))
            except ClientError:
                return
    raise AssertionError("it takes whatever it is given")


async def attempt(
    scene: Scene,
    output: OutputRef = OUTPUT,
    *,
    bucket: S3Address | None = None,
    patience: Mapping[str, object] | None = None,
) -> object:
    async with scene.storing(bucket, patience=patience) as store:
        return await store(output)


async def said_to_have_failed(scene: Scene) -> MigrationAttemptFailed:
    """The one thing that the log says: an attempt that will be made again."""
    (failed,) = await scene.world.said("g")
    assert isinstance(failed, MigrationAttemptFailed)
    assert failed.detail
    assert failed.retry_at > now() - timedelta(seconds=5)
    return failed


async def test_the_bytes_arrive_as_they_were(scene: Scene) -> None:
    await scene.completed("g")
    assert isinstance(await attempt(scene), StoredNow)
    ((key, (body, media_type)),) = (await scene.objects()).items()
    assert (body, media_type) == (picture(NAME), "image/png")
    stored = (await scene.world.said("g"))[0]
    assert isinstance(stored, MediaStored)
    assert (stored.object.key, stored.object.width, stored.object.height) == (key, 1, 1)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (403, ReasonCode.SOURCE_FORBIDDEN),
        (404, ReasonCode.SOURCE_EXPIRED),
        (410, ReasonCode.SOURCE_EXPIRED),
        (429, ReasonCode.SOURCE_UNAVAILABLE),
        (500, ReasonCode.SOURCE_UNAVAILABLE),
        (503, ReasonCode.SOURCE_UNAVAILABLE),
    ],
)
async def test_a_link_that_still_lives_gets_another_chance(
    scene: Scene, status: int, reason: ReasonCode
) -> None:
    scene.media.answer(NAME, status)
    await scene.completed("g")
    outcome = await attempt(scene)
    assert isinstance(outcome, FailedNow)
    assert outcome.reason is reason
    (failed,) = await scene.world.said("g")
    assert isinstance(failed, MigrationAttemptFailed)
    assert failed.reason is reason


@pytest.mark.parametrize("status", [403, 404, 410, 429, 500, 503])
async def test_a_dead_link_that_does_not_deliver_is_lost(scene: Scene, status: int) -> None:
    scene.media.answer(NAME, status)
    await scene.completed("g", dies_in=PAST)
    assert isinstance(await attempt(scene), LostNow)
    assert [type(event) for event in await scene.world.said("g")] == [MediaLost]


async def test_a_link_that_outlives_its_promise_is_stored(scene: Scene) -> None:
    await scene.completed("g", dies_in=PAST)
    assert isinstance(await attempt(scene), StoredNow)


async def test_a_link_that_says_gone_twice_is_believed(scene: Scene) -> None:
    scene.media.answer(NAME, 410)
    await scene.completed("g")
    assert isinstance(await attempt(scene), FailedNow)
    assert isinstance(await attempt(scene), LostNow)


async def test_a_source_that_asks_for_a_pause_gets_it(scene: Scene) -> None:
    scene.media.answer(NAME, 429, Retry_After="90")
    await scene.completed("g")
    before = now()
    outcome = await attempt(scene)
    assert isinstance(outcome, FailedNow)
    assert outcome.retry_at >= before + timedelta(seconds=90)


async def test_a_page_instead_of_media_is_given_up_at_once(scene: Scene) -> None:
    async def page(_request: web.Request) -> web.StreamResponse:
        return web.Response(text="<!doctype html><title>Sign in</title>", content_type="image/png")

    scene.media.answers[NAME] = page
    await scene.completed("g")
    outcome = await attempt(scene)
    assert isinstance(outcome, LostNow)
    assert outcome.reason is ReasonCode.MEDIA_TYPE_REFUSED


async def test_more_than_the_limit_is_given_up_at_once(scene: Scene) -> None:
    async def huge(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=bytes(1_000_001), content_type="image/png")

    scene.media.answers[NAME] = huge
    await scene.completed("g")
    outcome = await attempt(scene)
    assert isinstance(outcome, LostNow)
    assert outcome.reason is ReasonCode.TOO_LARGE


async def test_a_link_into_the_network_is_lost_when_it_dies_and_not_before(scene: Scene) -> None:
    await scene.world.completed("g", url="https://169.254.169.254/latest/meta-data")
    outcome = await attempt(scene)
    assert isinstance(outcome, FailedNow)
    assert outcome.reason is ReasonCode.BLOCKED_ADDRESS
    dead = timedelta(seconds=-1)
    await scene.world.completed("h", url="https://169.254.169.254/latest/meta-data", dies_in=dead)
    outcome = await attempt(scene, OutputRef("h", 0))
    assert isinstance(outcome, LostNow)
    assert outcome.reason is ReasonCode.BLOCKED_ADDRESS


async def test_what_settings_forbade_is_stored_once_they_allow_it(scene: Scene) -> None:
    await scene.completed("g")
    outcome = await attempt(scene, patience={"media_http_hosts": ()})
    assert isinstance(outcome, FailedNow)
    assert outcome.reason is ReasonCode.BLOCKED_ADDRESS
    assert isinstance(await attempt(scene), StoredNow)


async def test_a_source_that_sends_too_slowly_is_tried_again_and_the_log_says_so(
    scene: Scene,
) -> None:
    async def drop_by_drop(request: web.Request) -> web.StreamResponse:
        body = picture(NAME, size_bytes=100_000)
        answer = web.StreamResponse(headers={"Content-Length": str(len(body))})
        await answer.prepare(request)
        for at in range(0, len(body), 100):
            await answer.write(body[at : at + 100])
            await asyncio.sleep(0.02)
        return answer

    scene.media.answers[NAME] = drop_by_drop
    await scene.completed("g")
    slow = {"media_window_s": 0.2, "media_min_bytes_per_s": 50_000.0}
    assert isinstance(await attempt(scene, patience=slow), FailedNow)
    failed = await said_to_have_failed(scene)
    assert failed.reason is ReasonCode.TOO_SLOW
    assert "bytes/s" in failed.detail


@pytest.mark.parametrize("announced", [5000, 10])
async def test_a_source_whose_length_is_a_lie_is_tried_again_and_the_log_says_so(
    scene: Scene, announced: int
) -> None:
    async def lying(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {announced}\r\nConnection: close\r\n\r\n"
        request.transport.write(head.encode() + picture(NAME))
        request.transport.close()
        return web.Response()

    scene.media.answers[NAME] = lying
    await scene.completed("g")
    assert isinstance(await attempt(scene), FailedNow)
    failed = await said_to_have_failed(scene)
    assert failed.reason is ReasonCode.SOURCE_UNAVAILABLE
    assert await scene.objects() == {}


async def test_a_source_that_nobody_answers_for_is_tried_again_and_the_log_says_so(
    scene: Scene,
) -> None:
    async with media_server() as gone:
        pass
    await scene.world.completed("g", url=f"http://{gone.host}/{NAME}")
    scene.media.port, port = gone.port, scene.media.port
    try:
        assert isinstance(await attempt(scene), FailedNow)
    finally:
        scene.media.port = port
    failed = await said_to_have_failed(scene)
    assert failed.reason is ReasonCode.SOURCE_UNAVAILABLE
    assert "gave no answer" in failed.detail


async def test_a_bucket_that_says_that_it_is_full_loses_nothing_even_past_the_death_of_the_link(
    scene: Scene,
) -> None:
    await scene.completed("g", dies_in=PAST)
    async with told_s3() as told:
        told.refusals["PUT"] = (507, "InsufficientStorage")
        assert isinstance(await attempt(scene, bucket=told.address), FailedNow)
        assert (await said_to_have_failed(scene)).reason is ReasonCode.BUCKET_FULL
        del told.refusals["PUT"]
        assert isinstance(await attempt(scene, bucket=told.address), StoredNow)


@pytest.mark.timeout(120)
async def test_a_bucket_without_room_loses_nothing_and_takes_it_when_it_has_some(
    scene: Scene, tmp_path: Path
) -> None:
    names = ("s3", "master", "volume", "filer", "admin")
    chosen = choose(dict.fromkeys(names), tmp_path / "ports.json")
    own = SeaweedServer(
        tmp_path,
        s3_port=chosen["s3"],
        master_port=chosen["master"],
        volume_port=chosen["volume"],
        filer_port=chosen["filer"],
        admin_port=chosen["admin"],
        owned=True,
    )
    roomy = own.process.argv
    own.process.argv = [*roomy, "-volume.max=1", "-master.volumeSizeLimitMB=1"]
    await asyncio.to_thread(own.process.start)
    try:
        await asyncio.to_thread(filled, own.address)
        await scene.completed("g")
        assert isinstance(await attempt(scene, bucket=own.address), FailedNow)
        # It says no more than that something is wrong inside.
        assert (await said_to_have_failed(scene)).reason is ReasonCode.BUCKET_UNAVAILABLE
        await asyncio.to_thread(own.process.stop)
        own.process.argv = roomy
        await asyncio.to_thread(own.process.start)
        assert isinstance(await attempt(scene, bucket=own.address), StoredNow)
    finally:
        await asyncio.to_thread(own.process.kill)


async def test_bytes_that_the_bucket_changed_are_put_again_and_the_log_says_so(
    scene: Scene,
) -> None:
    await scene.completed("g")
    async with told_s3() as told:
        told.garble = True
        assert isinstance(await attempt(scene, bucket=told.address), FailedNow)
        assert (await said_to_have_failed(scene)).reason is ReasonCode.CHECKSUM_MISMATCH
        told.garble = False
        assert isinstance(await attempt(scene, bucket=told.address), StoredNow)


async def test_a_bucket_that_refuses_the_credentials_is_tried_again(scene: Scene) -> None:
    await scene.completed("g")
    outcome = await attempt(scene, bucket=replace(scene.bucket, secret_key="rotated"))
    assert isinstance(outcome, FailedNow)
    assert outcome.reason is ReasonCode.CREDENTIALS_REFUSED
    assert isinstance(await attempt(scene), StoredNow)


async def test_a_bucket_that_refuses_loses_nothing_even_past_the_death_of_the_link(
    scene: Scene,
) -> None:
    await scene.completed("g", dies_in=PAST)
    outcome = await attempt(scene, bucket=replace(scene.bucket, secret_key="rotated"))
    assert isinstance(outcome, FailedNow)
    assert outcome.retry_at > now()
    assert isinstance(await attempt(scene), StoredNow)


async def test_a_bucket_that_is_down_is_tried_again_until_it_is_back(
    scene: Scene, own_s3: OwnS3
) -> None:
    await scene.completed("g")
    await asyncio.to_thread(own_s3.server.kill)
    outcome = await attempt(scene, bucket=own_s3.address)
    assert isinstance(outcome, FailedNow)
    assert outcome.reason is ReasonCode.BUCKET_UNAVAILABLE
    await asyncio.to_thread(own_s3.server.start)
    assert isinstance(await attempt(scene, bucket=own_s3.address), StoredNow)


async def test_an_output_stored_by_two_at_once_is_one_object_and_one_event(scene: Scene) -> None:
    await scene.completed("g")
    async with scene.storing() as store:
        outcomes = await asyncio.gather(*(store(OUTPUT) for _ in range(8)))
    assert sum(isinstance(outcome, StoredNow) for outcome in outcomes) == 1
    assert len(await scene.objects()) == 1
    said = await scene.world.said("g")
    assert sorted(type(event).__name__ for event in said) == ["MediaStored", "MigrationCompleted"]
