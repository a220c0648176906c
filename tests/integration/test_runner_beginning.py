"""A runner whose consumer is gone begins where somebody still has to go on."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from generation_svc.adapters.nats_runner.beginning import Beginning
from generation_svc.read_model.model import NAME
from shared.event_log.port import LogUnavailable
from shared.postgres.connecting import open_pool
from shared.projection.recognised_log import RecognisedLog
from tests.generation_events import REQUESTED, STARTED, SUBMITTED, completed
from tests.projecting import World, world

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shared.contracts.subjects import Subjects


@pytest.fixture
async def here(
    nats_url: str, stream: str, subjects: Subjects, database: str
) -> AsyncGenerator[World]:
    async with world(nats_url, stream, subjects, database) as opened:
        yield opened


@asynccontextmanager
async def beginning(here: World) -> AsyncGenerator[Beginning]:
    pool = await open_pool(here.dsn, schema=NAME, application_name="test")
    try:
        yield Beginning(pool, here.log)
    finally:
        await pool.close()


async def test_it_begins_at_the_first_request_that_is_not_finished(here: World) -> None:
    async with here.projector().running(), beginning(here) as begin_at:
        await here.reached(await here.say("done", REQUESTED, STARTED, SUBMITTED, completed("link")))
        assert await begin_at() == 5
        await here.reached(await here.say("running", REQUESTED, STARTED, SUBMITTED))
        await here.reached(await here.say("asked", REQUESTED))
        assert await begin_at() == 5
        await here.reached(await here.say("running", completed("link")))
        assert await begin_at() == 8


async def test_without_a_read_model_it_begins_at_the_beginning(here: World) -> None:
    async with beginning(here) as begin_at:
        await here.say("g1", REQUESTED)
        assert await begin_at() == 1


async def test_what_is_parked_may_be_unfinished(here: World) -> None:
    async with here.projector().running(), beginning(here) as begin_at:
        await here.say_bytes(here.subjects.of("generation", "broken"), b"no event")
        await here.reached(await here.say("done", REQUESTED, STARTED, SUBMITTED, completed("link")))
        assert await begin_at() == 1


async def test_on_another_log_it_does_not_begin(here: World) -> None:
    async def other() -> str:
        return "it ends too early"

    async with beginning(here) as begin_at:
        with pytest.raises(LogUnavailable, match="it ends too early"):
            await Beginning(begin_at.pool, RecognisedLog(here.log, other))()
