"""A dead link, and a generation service (played here) that has a new one, or none, or is silent.

Downloads, bucket, log, backlog and workers are real.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from shared.contracts.generation_events import LinksNotRenewed, LinksRenewed, RenewedLink
from shared.contracts.storage_events import (
    MediaLost,
    MediaStored,
    MigrationAttemptFailed,
    MigrationCompleted,
    RefetchRequested,
)
from storage_svc.domain.policies import Refetching
from tests.storage_media import picture
from tests.storage_process import storage_process
from tests.storage_world import now

if TYPE_CHECKING:
    from tests.storage_scene import Scene

PAST = timedelta(seconds=-5)
ASKED = [MigrationAttemptFailed, RefetchRequested]
STORED = [MediaStored, MigrationCompleted]


@pytest.fixture
def scene(projecting_scene: Scene) -> Scene:
    return projecting_scene


async def dead(scene: Scene, *, request_id: str | None = "request-7") -> None:
    """One generation whose only link is dead."""
    scene.media.answer("g-0.png", 410)
    await scene.completed("g", dies_in=PAST, request_id=request_id)
    await scene.world.level()


def new_link(scene: Scene, request: int, name: str) -> LinksRenewed:
    link = RenewedLink(
        index=0, source_url=scene.media.url(name), expires_at=now() + timedelta(hours=1)
    )
    return LinksRenewed(request=request, links=(link,))


async def said(scene: Scene) -> list[type]:
    return [type(event) for event in await scene.world.said("g")]


async def until_said(scene: Scene, *types: type) -> None:
    async def holds() -> bool:
        await scene.world.level()
        return await said(scene) == list(types)

    await scene.world.until(holds)


async def test_a_dead_link_is_replaced_and_the_media_is_stored_from_the_new_one(
    scene: Scene,
) -> None:
    await dead(scene)
    async with (
        scene.storing() as store,
        scene.world.at_work(scene.world.workers_with(store)),
    ):
        await until_said(scene, *ASKED)
        summary = await scene.world.report.summary(now())
        assert (summary.pending, summary.awaiting_link, summary.lost) == (0, 1, 0)
        (waiting,) = await scene.world.report.waiting(now(), max_rows=10)
        assert (waiting.state, waiting.reason) == ("awaiting_link", "source_expired")

        await scene.world.hears("g", new_link(scene, 1, "new.png"))
        await until_said(scene, *ASKED, *STORED)
    ((body, media_type),) = (await scene.objects()).values()
    assert (body, media_type) == (picture("new.png"), "image/png")
    assert scene.media.order == ["g-0.png", "new.png"]


async def test_a_link_that_is_not_renewed_is_lost_at_once(scene: Scene) -> None:
    await dead(scene)
    async with (
        scene.storing() as store,
        scene.world.at_work(scene.world.workers_with(store)),
    ):
        await until_said(scene, *ASKED)
        await scene.world.hears("g", LinksNotRenewed(request=1, detail="forgotten"))
        await until_said(scene, *ASKED, MediaLost)
    lost = (await scene.world.said("g"))[-1]
    assert isinstance(lost, MediaLost)
    assert lost.detail == "the link is dead (410); no new link: forgotten"


async def test_where_nobody_answers_the_output_is_lost_and_a_late_answer_still_saves_it(
    scene: Scene,
) -> None:
    await dead(scene)
    soon = Refetching(window=timedelta(seconds=0.5))
    async with (
        scene.storing(refetching=soon) as store,
        scene.world.at_work(scene.world.workers_with(store)),
    ):
        await until_said(scene, *ASKED, MediaLost)
        assert (await scene.world.report.summary(now())).lost == 1
        await scene.world.hears("g", new_link(scene, 1, "new.png"))
        await until_said(scene, *ASKED, MediaLost, *STORED)
    assert len(await scene.objects()) == 1


async def test_new_links_that_are_dead_too_end_after_so_many(scene: Scene) -> None:
    await dead(scene)
    scene.media.answer("new.png", 410)
    async with (
        scene.storing() as store,
        scene.world.at_work(scene.world.workers_with(store)),
    ):
        for request in (1, 2):
            await until_said(scene, *ASKED * request)
            link = new_link(scene, request, "new.png")
            dead_by_now = link.links[0].model_copy(update={"expires_at": now() + PAST})
            await scene.world.hears("g", link.model_copy(update={"links": (dead_by_now,)}))
        await until_said(scene, *ASKED, *ASKED, MediaLost)


async def test_media_that_another_service_made_is_lost_as_its_link_is(scene: Scene) -> None:
    await dead(scene, request_id=None)
    async with (
        scene.storing() as store,
        scene.world.at_work(scene.world.workers_with(store)),
    ):
        await until_said(scene, MediaLost)


async def test_the_service_waits_for_a_new_link_as_long_as_its_settings_say(scene: Scene) -> None:
    await dead(scene)
    env = scene.env | {"VELRO_REFETCH_WINDOW_S": "0.5"}
    async with storage_process(env, "serve", quiet=True) as service:
        await until_said(scene, *ASKED, MediaLost)
        await service.kill()
