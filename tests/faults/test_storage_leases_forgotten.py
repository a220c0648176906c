"""The backlog is rebuilt beside a running copy, and forgets who is at it: nothing is kept twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from shared.contracts.storage_events import MediaStored, MigrationCompleted
from shared.contracts.subjects import Subjects
from shared.projection.batch import Decoding
from shared.projection.rebuild import replay
from shared.projection.rebuild_only import rebuild_only
from storage_svc.read_model.model import BacklogModel
from tests.storage_media import picture
from tests.storage_scene import Scene, open_scene

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from velro.stack.seaweedfs import S3Address

NAME = "g-0.png"


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
        projecting=True,
    ) as opened:
        yield opened


@pytest.mark.parametrize("only", [True, False], ids=["one generation", "all of it"])
async def test_a_rebuild_in_the_middle_of_a_copy_leaves_one_object_and_one_event(
    scene: Scene, database: str, *, only: bool
) -> None:
    both = asyncio.Event()

    async def when_both_ask(_request: web.Request) -> web.StreamResponse:
        if scene.media.requests[NAME] == 2:
            both.set()
        await both.wait()
        return web.Response(body=picture(NAME), content_type="image/png")

    scene.media.answers[NAME] = when_both_ask
    await scene.completed("g")
    await scene.world.level()
    decoding = Decoding(Subjects(scene.subject_root))
    async with scene.storing() as store:
        first = asyncio.create_task(scene.world.workers_with(store).run_batch(1))
        await scene.media.requested(NAME, 1)
        assert await scene.world.workers_with(store).run_batch(1) == 0, "it is leased"
        if only:
            await rebuild_only(database, scene.world.log, BacklogModel(), decoding, ["g"])
        else:
            await replay(database, scene.world.log, BacklogModel(), decoding)
        assert await scene.world.workers_with(store).run_batch(1) == 1, "nobody knows of the first"
        assert await first == 1
    assert [type(event) for event in await scene.world.said("g")] == [
        MediaStored,
        MigrationCompleted,
    ]
    assert list((await scene.objects()).values()) == [(picture(NAME), "image/png")]
    await scene.world.until_pending(0)
