"""Sources and buckets that fail for real, and what the log says about each."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from shared.contracts.events import MediaLost, MediaStored, MigrationAttemptFailed
from shared.contracts.reasons import ReasonCode
from storage_svc.application.backlog import OutputRef
from storage_svc.application.store_output import FailedNow, LostNow, StoredNow
from tests.storage_media import picture
from tests.storage_world import now

if TYPE_CHECKING:
    from tests.servers.port import OwnS3
    from tests.storage_scene import Scene
    from velro.stack.seaweedfs import S3Address

OUTPUT = OutputRef("g", 0)
NAME = "g-0.png"
PAST = timedelta(seconds=-5)


async def attempt(scene: Scene, *, bucket: S3Address | None = None) -> object:
    async with scene.storing(bucket) as store:
        return await store(OUTPUT)


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


async def test_a_link_into_the_network_is_given_up_at_once(scene: Scene) -> None:
    await scene.world.completed("g", url="https://169.254.169.254/latest/meta-data")
    outcome = await attempt(scene)
    assert isinstance(outcome, LostNow)
    assert outcome.reason is ReasonCode.BLOCKED_ADDRESS


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
