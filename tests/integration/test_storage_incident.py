"""What the first repair of the outage got wrong: one test a line of the incident's list.

Bytes, bucket, log and backlog are real; what users see is folded as the generation service does.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from generation_svc.adapters.http.ports import ObjectUrl
from generation_svc.adapters.http.presenting import present
from generation_svc.read_model.fold import evolve
from generation_svc.read_model.looking_back import view_of
from generation_svc.read_model.rows import GenerationRow, StorageState
from shared.contracts.storage_events import MediaStored, MigrationAttemptFailed
from storage_svc.application.backlog import OutputRef
from storage_svc.application.store_output import FailedNow
from storage_svc.domain.policies import SHORTEST_DELAY
from tests.storage_world import PretendedCopier, now

if TYPE_CHECKING:
    from generation_svc.adapters.http.models import GenerationAnswer
    from shared.contracts.facts import StoredObject
    from tests.storage_scene import Scene

FLAGS = ("storage_retry_needed", "fal_urls_temporary", "requires_background_migration")

MP4 = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp42" + bytes(64)


@pytest.fixture
def scene(projecting_scene: Scene) -> Scene:
    return projecting_scene


async def seen(scene: Scene, generation_id: str = "g") -> GenerationRow:
    """The generation as its user sees it."""
    generation = await scene.world.log.load("generation", generation_id)
    storage = await scene.world.log.load("storage", generation_id)
    row: GenerationRow | None = None
    for recorded in sorted((*generation.events, *storage.events), key=lambda r: r.position):
        row = evolve(row, recorded)
    assert row is not None
    return row


async def shown(scene: Scene) -> GenerationAnswer:
    """What the API says of it; a permanent URL begins with `kept:`."""

    async def kept(stored: StoredObject) -> ObjectUrl:
        return ObjectUrl(f"kept:{stored.key}")

    return await present(view_of("g", await seen(scene)), kept)


async def store(scene: Scene, *indexes: int) -> list[object]:
    async with scene.storing() as storing:
        return [await storing(OutputRef("g", index)) for index in indexes]


async def test_one_failed_output_among_several_never_drops_or_moves_the_others_urls(
    scene: Scene,
) -> None:
    scene.media.answer("g-1.png", 503)
    await scene.completed("g", outputs=3)
    before = await seen(scene)
    await store(scene, 0, 1, 2)
    after = await seen(scene)
    assert [output.source_url for output in after.outputs] == [
        output.source_url for output in before.outputs
    ]
    first, second, third = (await shown(scene)).output_urls
    assert first.startswith("kept:ann/g/0-")
    assert second == scene.media.url("g-1.png")
    assert third.startswith("kept:ann/g/2-")


async def test_flags_clear_only_when_all_are_stored_and_all_of_them_clear(scene: Scene) -> None:
    scene.media.answer("g-1.png", 503)
    await scene.completed("g", outputs=3)
    await store(scene, 0, 1, 2)
    row = await seen(scene)
    assert (row.storage_state, row.migration) == (StorageState.PARTIAL, None)
    told = (await shown(scene)).metadata
    assert [told[name] for name in (*FLAGS, "storage_successful")] == [True, True, True, False]
    del scene.media.answers["g-1.png"]
    await store(scene, 1)
    row = await seen(scene)
    assert row.storage_state is StorageState.STORED
    assert row.earliest_link_death is None
    assert row.migration is not None
    assert row.migration.file_count == 3
    assert not [output for output in row.outputs if output.failure_reason]
    after = await shown(scene)
    told = after.metadata
    assert [told[name] for name in (*FLAGS, "storage_successful")] == [False, False, False, True]
    assert all(url.startswith("kept:") for url in after.output_urls)
    assert scene.media.host not in after.model_dump_json(), "no temporary link is left"


async def test_oldest_deadlines_are_not_starved(scene: Scene) -> None:
    await scene.completed("old", dies_in=timedelta(minutes=5))
    for number in range(10):
        await scene.completed(f"new-{number}", dies_in=timedelta(hours=1))
    await scene.world.level()
    copier = PretendedCopier()
    await scene.world.workers(copier).run_batch(1)
    assert copier.names() == ["old"]


async def test_no_item_is_retried_for_ever_at_full_speed(scene: Scene) -> None:
    scene.media.answer("g-0.png", 503)
    await scene.completed("g")
    pauses: list[timedelta] = []
    for _ in range(5):
        (outcome,) = await store(scene, 0)
        assert isinstance(outcome, FailedNow)
        pauses.append(outcome.retry_at - now())
    assert pauses == sorted(pauses)
    assert pauses[-1] > 10 * SHORTEST_DELAY
    await scene.world.level()
    assert await scene.world.workers(PretendedCopier()).run_batch(10) == 0, "it is not due"


async def test_two_workers_never_duplicate_work(scene: Scene) -> None:
    for number in range(20):
        await scene.completed(f"g{number}")
    await scene.world.level()
    copier = PretendedCopier()
    await asyncio.gather(*(scene.world.workers(copier).run_batch(20) for _ in range(2)))
    assert sorted(copier.names()) == sorted(f"g{number}" for number in range(20))


async def test_concurrent_metadata_changes_are_not_lost(scene: Scene) -> None:
    await scene.completed("g", outputs=8)
    async with scene.storing() as storing:
        await asyncio.gather(*(storing(OutputRef("g", index)) for index in range(8)))
    row = await seen(scene)
    assert row.storage_state is StorageState.STORED
    assert row.migration is not None
    assert row.migration.file_count == 8


async def test_content_types_are_right_for_mp4_with_a_token(scene: Scene) -> None:
    async def video(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=MP4, content_type="application/octet-stream")

    scene.media.answers["clip.mp4"] = video
    await scene.world.completed("g", url=f"http://{scene.media.host}/clip.mp4?token=a.png")
    await store(scene, 0)
    ((key, (body, media_type)),) = (await scene.objects()).items()
    assert (body, media_type) == (MP4, "video/mp4")
    assert key.endswith(".mp4")


async def test_a_failed_migration_is_visible_as_failed(scene: Scene) -> None:
    scene.media.answer("g-0.png", 503)
    await scene.completed("g")
    await store(scene, 0)
    assert (await seen(scene)).outputs[0].failure_reason == "source_unavailable"
    await scene.world.level()
    assert (await scene.world.report.summary(now())).reasons == {"source_unavailable": 1}
    (failed,) = await scene.world.said("g")
    assert isinstance(failed, MigrationAttemptFailed)
    del scene.media.answers["g-0.png"]
    await store(scene, 0)
    assert isinstance((await scene.world.said("g"))[1], MediaStored)
