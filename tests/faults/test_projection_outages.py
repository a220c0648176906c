"""Postgres and the log go away beneath a projection, and it goes on when they are back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from shared.projection.runner import ProjectorState
from tests.generation_events import REQUESTED, STARTED, SUBMITTED, completed
from tests.projecting import WAIT_S, same_as, until, until_state, world

if TYPE_CHECKING:
    from shared.contracts.subjects import Subjects
    from tests.servers.port import OwnNats, OwnPostgres


@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_postgres_is_restarted(
    nats_url: str, stream: str, subjects: Subjects, own_postgres: OwnPostgres, how: str
) -> None:
    server = own_postgres.server
    async with world(nats_url, stream, subjects, own_postgres.dsn) as here:
        projector = here.projector()
        async with projector.running():
            await here.reached(await here.say("g1", REQUESTED))
            waiting = asyncio.create_task(here.watch.wait_for(3, timeout_s=2 * WAIT_S))
            await asyncio.to_thread(getattr(server, how))
            await until_state(projector, ProjectorState.WAITING)
            await here.say("g1", STARTED, SUBMITTED)
            assert not waiting.done()
            await asyncio.to_thread(server.start)
            await waiting
            await here.reached(await here.say("g1", completed("link")))
        assert same_as(await here.folded(), await here.rows())


@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_the_log_is_restarted(
    own_nats: OwnNats, stream: str, subjects: Subjects, database: str, how: str
) -> None:
    server = own_nats.server
    async with world(own_nats.url, stream, subjects, database) as here:
        projector = here.projector()
        async with projector.running():
            await here.reached(await here.say("g1", REQUESTED, STARTED))
            await asyncio.to_thread(getattr(server, how))
            await until(lambda: not here.nats.is_connected)
            assert (await projector.health()).lag is None
            await asyncio.to_thread(server.start)
            await until(lambda: here.nats.is_connected)
            await here.reached(await here.say("g1", SUBMITTED, completed("link")))
        assert same_as(await here.folded(), await here.rows())


@pytest.mark.timeout(120)
async def test_a_projector_starts_before_its_servers_do(
    own_postgres: OwnPostgres, nats_url: str, stream: str, subjects: Subjects
) -> None:
    await asyncio.to_thread(own_postgres.server.stop)
    async with world(nats_url, stream, subjects, own_postgres.dsn) as here:
        projector = here.projector()
        async with projector.running():
            await until_state(projector, ProjectorState.WAITING)
            await asyncio.to_thread(own_postgres.server.start)
            await here.reached(await here.say("g1", REQUESTED))
