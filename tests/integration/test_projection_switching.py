"""While tables are switched and switched back under load, readers notice nothing."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from generation_svc.read_model.model import NAME
from generation_svc.read_model.queries import GenerationQueries
from shared.postgres.connecting import open_pool
from shared.projection.errors import AnotherIsActive, NothingToUndo
from shared.projection.rebuild import replay
from shared.projection.rebuild_schemas import Schemas, sweep, sweeping
from shared.projection.rebuild_undo import undo
from shared.projection.runner import Projector
from tests.generation_events import NOON, REQUESTED, STARTED, SUBMITTED, completed, media_stored
from tests.projecting import QUICK, World, same_as, until_answered, world
from tests.read_models import NewerModel

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shared.contracts.subjects import Subjects


@pytest.fixture
async def here(
    nats_url: str, stream: str, subjects: Subjects, database: str
) -> AsyncGenerator[World]:
    async with world(nats_url, stream, subjects, database) as made:
        yield made


async def history(here: World, generation_id: str) -> int:
    await here.say(generation_id, REQUESTED, STARTED, SUBMITTED, completed("link", "link"))
    return await here.say(generation_id, media_stored(0), media_stored(1))


async def rebuilt(here: World, grace: timedelta = timedelta(hours=1)) -> None:
    await replay(here.dsn, here.log, here.model, here.decoding, grace=grace)


async def undone(here: World) -> int:
    return (await undo(here.dsn, here.log, here.model, here.decoding)).caught_up


async def previous_is_kept(here: World) -> bool:
    connection = await here.connection()
    try:
        found: bool = await connection.fetchval(
            "select to_regnamespace($1) is not null", f"{NAME}_previous"
        )
        return found
    finally:
        await connection.close()


@dataclass
class Readers:
    """Several that read one after the other, as a service does, and know what others have seen."""

    queries: GenerationQueries
    newest: int = 0
    most: int = 0
    reads: int = 0
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def read_pages(self) -> None:
        while not self.stop.is_set():
            newest = self.newest
            page = await self.queries.list_page(limit=200)
            seen = max(view.position for view in page.generations)
            assert seen >= newest, "an older row after a newer one"
            self.newest = max(self.newest, seen)
            self.reads += 1

    async def count(self) -> None:
        while not self.stop.is_set():
            most = self.most
            stats = await self.queries.stats(NOON, now=NOON)
            assert stats.generations >= most, "fewer rows than before"
            self.most = max(self.most, stats.generations)
            self.reads += 1


@asynccontextmanager
async def reading_and_writing(here: World) -> AsyncGenerator[Readers]:
    pool = await open_pool(here.dsn, schema=NAME, application_name="readers", max_size=6)
    readers = Readers(GenerationQueries(pool))

    async def write() -> None:
        number = 0
        while not readers.stop.is_set():
            number += 1
            await history(here, f"w{number}")

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            for _ in range(2):
                tasks.create_task(readers.read_pages())
                tasks.create_task(readers.count())
            try:
                yield readers
            finally:
                readers.stop.set()
    finally:
        await pool.close()


async def test_readers_see_no_gap_no_older_row_and_no_error(here: World) -> None:
    async with here.projector().running():
        await here.reached(await history(here, "g0"))
        async with reading_and_writing(here) as readers:
            for _ in range(3):
                await rebuilt(here)
                assert await undone(here) >= 0
            before = readers.reads

            async def read_on() -> bool:
                return readers.reads > before + 20

            await until_answered(read_on)
        await here.reached(await history(here, "last"))
        assert same_as(await here.folded(), await here.rows())


async def test_undoing_catches_up_before_it_switches_and_can_be_undone(here: World) -> None:
    async with here.projector().running():
        await here.reached(await history(here, "g1"))
        await rebuilt(here)
        await here.reached(await history(here, "g2"))
        assert await undone(here) == 6
        assert same_as(await here.folded(), await here.rows())
        await here.reached(await history(here, "g3"))
        assert await undone(here) == 6
        await here.reached(await history(here, "g4"))
        assert same_as(await here.folded(), await here.rows())


async def test_there_is_nothing_to_undo_before_a_rebuild_or_after_the_grace(here: World) -> None:
    await history(here, "g1")
    await rebuilt(here)
    with pytest.raises(NothingToUndo, match="velro replay generation"):
        await undone(here)
    await rebuilt(here, grace=timedelta(0))
    connection = await here.connection()
    await sweep(connection, Schemas(NAME))
    await connection.close()
    with pytest.raises(NothingToUndo):
        await undone(here)
    assert same_as(await here.folded(), await here.rows())


async def test_replaced_tables_are_kept_for_their_time_and_dropped_by_the_projector(
    here: World,
) -> None:
    await history(here, "g1")
    await rebuilt(here)
    await rebuilt(here)
    async with sweeping(here.dsn, NAME, every_s=0.02):
        connection = await here.connection()
        await sweep(connection, Schemas(NAME))
        assert await previous_is_kept(here)
        await connection.execute(
            "update generation_previous.replaced set kept_until = now() - interval '1 second'"
        )
        await connection.close()

        async def gone() -> bool:
            return not await previous_is_kept(here)

        await until_answered(gone)
    assert same_as(await here.folded(), await here.rows())


async def test_tables_of_another_version_come_back_with_the_program_that_made_them(
    here: World,
) -> None:
    async with here.projector().running():
        await here.reached(await history(here, "g1"))
    newer = NewerModel()
    await replay(here.dsn, here.log, newer, here.decoding)
    with pytest.raises(NothingToUndo, match="another version"):
        await undo(here.dsn, here.log, newer, here.decoding)
    async with Projector(here.dsn, here.log, newer, here.decoding, timing=QUICK).running():
        await here.reached(await history(here, "g2"))
    assert await undone(here) == 6
    rows = await here.rows()
    assert "newer" not in rows["g2"]
    assert same_as(await here.folded(), rows)


async def test_a_reader_that_holds_the_tables_is_waited_for_and_not_broken(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.projection.rebuild._TRIES", 2)
    async with here.projector().running():
        await here.reached(await history(here, "g1"))
        holder = await here.connection()
        async with holder.transaction(isolation="repeatable_read"):
            assert await holder.fetchval("select count(*) from generations") == 1
            with pytest.raises(AnotherIsActive, match="held its tables"):
                await rebuilt(here)
            # The live projector was not stopped, and the holder sees what it saw.
            await here.reached(await history(here, "g2"))
            assert await holder.fetchval("select count(*) from generations") == 1
        await holder.close()
        await rebuilt(here)
        assert set(await here.rows()) == {"g1", "g2"}
