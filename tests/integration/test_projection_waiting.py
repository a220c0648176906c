"""Whoever waits for a position is woken when the read model reaches it, or told that it did not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from generation_svc.read_model.model import NAME, GenerationModel
from shared.postgres.connecting import connect
from shared.projection.errors import NotReached, TooManyWaiters
from shared.projection.tables import channel_of, ensure
from shared.projection.waiting import PositionWatch
from tests.projecting import WAIT_S, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asyncpg import Connection, Record


@pytest.fixture
async def writer(database: str) -> AsyncGenerator[Connection[Record]]:
    """A connection that moves the checkpoint as a projector would."""
    connection = await connect(database, schema=NAME, application_name="test")
    await ensure(connection, NAME, GenerationModel())
    yield connection
    await connection.close()


async def move(writer: Connection[Record], position: int) -> None:
    async with writer.transaction():
        await writer.execute(
            "update projection_checkpoint set position = $1, event_fingerprint = 'x'", position
        )
        await writer.execute("select pg_notify($1, $2)", channel_of(NAME), str(position))


async def test_those_who_wait_are_woken_in_turn(database: str, writer: Connection[Record]) -> None:
    watch = PositionWatch(database, NAME)
    async with watch.running():
        near = asyncio.create_task(watch.wait_for(5, timeout_s=WAIT_S))
        far = asyncio.create_task(watch.wait_for(9, timeout_s=WAIT_S))
        await move(writer, 7)
        await near
        assert not far.done()
        await move(writer, 9)
        await far
        await watch.wait_for(3, timeout_s=0)


async def test_what_was_reached_before_anybody_listened_is_known(
    database: str, writer: Connection[Record]
) -> None:
    await move(writer, 4)
    watch = PositionWatch(database, NAME)
    async with watch.running():
        await watch.wait_for(4, timeout_s=WAIT_S)


async def test_who_waits_too_long_is_told_how_far_it_is(
    database: str, writer: Connection[Record]
) -> None:
    await move(writer, 4)
    watch = PositionWatch(database, NAME)
    async with watch.running():
        await watch.wait_for(4, timeout_s=WAIT_S)
        with pytest.raises(NotReached, match="is at position 4"):
            await watch.wait_for(5, timeout_s=0.05)


async def test_as_many_wait_as_may_and_no_more(database: str, writer: Connection[Record]) -> None:
    watch = PositionWatch(database, NAME, max_waiters=2)
    async with watch.running():
        waiting = [asyncio.create_task(watch.wait_for(9, timeout_s=WAIT_S)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(TooManyWaiters):
            await watch.wait_for(9, timeout_s=WAIT_S)
        await move(writer, 9)
        await asyncio.gather(*waiting)
        await watch.wait_for(9, timeout_s=0)


async def test_those_who_gave_up_take_no_room(database: str, writer: Connection[Record]) -> None:
    watch = PositionWatch(database, NAME, max_waiters=2)
    async with watch.running():
        for _ in range(20):
            with pytest.raises(NotReached):
                await watch.wait_for(9, timeout_s=0)
        assert len(watch._waiters) <= 2  # pyright: ignore[reportPrivateUsage] - it is about memory
        await move(writer, 9)
        await watch.wait_for(9, timeout_s=WAIT_S)


async def test_it_survives_the_loss_of_its_connection(
    database: str, writer: Connection[Record]
) -> None:
    await move(writer, 1)
    watch = PositionWatch(database, NAME)
    async with watch.running():
        await watch.wait_for(1, timeout_s=WAIT_S)
        waiting = asyncio.create_task(watch.wait_for(2, timeout_s=WAIT_S))
        await writer.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1",
            f"velro watch {NAME}",
        )
        await move(writer, 2)
        await waiting


async def test_it_waits_for_tables_that_nobody_has_made_yet(database: str) -> None:
    watch = PositionWatch(database, NAME)
    async with watch.running():
        waiting = asyncio.create_task(watch.wait_for(1, timeout_s=WAIT_S))
        connection = await connect(database, schema=NAME, application_name="test")
        await ensure(connection, NAME, GenerationModel())
        await move(connection, 1)
        await waiting
        await connection.close()


async def test_it_follows_a_rebuild_that_goes_back(
    database: str, writer: Connection[Record]
) -> None:
    watch = PositionWatch(database, NAME)
    async with watch.running():
        await move(writer, 9)
        await watch.wait_for(9, timeout_s=WAIT_S)
        await move(writer, 2)
        await until(lambda: watch.position == 2)
        with pytest.raises(NotReached):
            await watch.wait_for(9, timeout_s=0)
