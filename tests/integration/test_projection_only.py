"""The rows of one generation, or of one user's, are made anew beside the projector."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from generation_svc.read_model.model import GenerationModel
from shared.projection.errors import PoisonedEvent, SchemaOutdated
from shared.projection.rebuild import replay
from shared.projection.rebuild_only import RebuiltOnly, generations_of, rebuild_only
from shared.projection.runner import Projector
from storage_svc.read_model.model import BacklogModel
from tests.generation_events import REQUESTED, STARTED, SUBMITTED, completed, media_stored
from tests.projecting import QUICK, World, same_as, world
from tests.read_models import NewerModel

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from generation_svc.read_model.rows import GenerationRow
    from shared.contracts.envelope import Recorded
    from shared.contracts.subjects import Subjects


@pytest.fixture
async def here(
    nats_url: str, stream: str, subjects: Subjects, database: str
) -> AsyncGenerator[World]:
    async with world(nats_url, stream, subjects, database) as made:
        yield made


async def history(here: World, generation_id: str, user_id: str = "u1") -> int:
    asked = REQUESTED.model_copy(update={"user_id": user_id})
    await here.say(generation_id, asked, STARTED, SUBMITTED, completed("link", "link"))
    return await here.say(generation_id, media_stored(0))


async def run(here: World, statement: str) -> None:
    connection = await here.connection()
    await connection.execute(statement)
    await connection.close()


async def only(here: World, *generation_ids: str) -> RebuiltOnly:
    return await rebuild_only(here.dsn, here.log, here.model, here.decoding, generation_ids)


async def test_a_damaged_row_a_missing_row_and_a_row_of_nothing_are_put_right(here: World) -> None:
    async with here.projector().running():
        await history(here, "g1")
        await history(here, "g2")
        await here.reached(await history(here, "g3"))
        await run(here, "update generations set user_id = 'wrong', input = '{}' where id = 'g1'")
        await run(here, "delete from generations where id = 'g2'")
        await run(here, "create table one as select * from generations where id = 'g3'")
        await run(
            here,
            "insert into generations (id, position, user_id, provider, model, status, attempts,"
            " created_at, updated_at, outputs, storage_state) select 'ghost', position, user_id,"
            " provider, model, 'running', 1, created_at, updated_at, '[]', 'none' from one",
        )
        await run(here, "drop table one")
        assert await only(here, "g1", "g2", "ghost") == RebuiltOnly(3, 2, 15, ["ghost"])
        assert same_as(await here.folded(), await here.rows())
        await here.reached(await here.say("g1", media_stored(1)))
        assert same_as(await here.folded(), await here.rows())


async def test_while_events_arrive_none_is_lost_and_none_applied_twice(here: World) -> None:
    ids = [f"g{number}" for number in range(4)]
    async with here.projector().running():
        for generation_id in ids:
            await here.reached(await history(here, generation_id))
        stop = asyncio.Event()

        async def write() -> int:
            number = position = 0
            while not stop.is_set():
                number += 1
                position = await history(here, f"w{number}")
                again = STARTED.model_copy(update={"attempt": 1 + number})
                position = await here.say(ids[number % 4], again)
            return position

        writing = asyncio.create_task(write())
        for _ in range(20):
            await only(here, *ids, "w1", "w2")
        stop.set()
        await here.reached(await writing)
        assert same_as(await here.folded(), await here.rows())


async def test_tables_behind_the_log_get_no_event_before_its_turn(here: World) -> None:
    async with here.projector().running():
        position = await history(here, "g1")
        await here.reached(position)
    before = await here.rows()
    await here.say("g1", media_stored(1))
    assert (await only(here, "g1")).position == position
    assert await here.rows() == before
    async with here.projector().running():
        await here.reached(position + 1)
    assert same_as(await here.folded(), await here.rows())


async def test_a_users_generations_are_found_in_the_log_and_in_the_tables(here: World) -> None:
    async with here.projector().running():
        await history(here, "g1", "zoe")
        await history(here, "g2", "bob")
        await here.reached(await history(here, "g3", "zoe"))
        await run(here, "update generations set user_id = 'bob' where id = 'g1'")
        await run(here, "delete from generations where id = 'g3'")
        seen: list[tuple[int, int]] = []
        found = await generations_of(
            here.dsn,
            here.log,
            here.model,
            here.decoding,
            "zoe",
            on_progress=lambda done, total: seen.append((done, total)),
        )
        assert found == ["g1", "g3"]
        assert seen[-1] == (15, 15)
        bobs = await generations_of(here.dsn, here.log, here.model, here.decoding, "bob")
        assert bobs == ["g1", "g2"]
        await only(here, *found)
    assert same_as(await here.folded(), await here.rows())


async def test_events_may_be_looked_for_in_the_whole_log(here: World) -> None:
    async with here.projector().running():
        await history(here, "g1")
        await here.reached(await history(here, "g2"))
        await run(here, "delete from generations")
        ids = ("g1", "g2")
        await rebuild_only(here.dsn, here.log, here.model, here.decoding, ids, by_reading=True)
    assert same_as(await here.folded(), await here.rows())


async def test_an_event_that_cannot_be_applied_changes_nothing(here: World) -> None:
    async with here.projector().running():
        await history(here, "g1")
        await here.say_bytes(here.subjects.storage("g1"), b"?")
        await here.reached(await history(here, "g2"))
        before = await here.rows()
        with pytest.raises(PoisonedEvent, match="nothing was changed"):
            await only(here, "g1", "g2")
        assert await here.rows() == before


async def test_what_was_parked_is_applied_once_it_can_be(here: World) -> None:
    class Picky(GenerationModel):
        def evolve(self, row: GenerationRow | None, recorded: Recorded) -> GenerationRow | None:
            if recorded.envelope.type == "velro.storage.media_stored.v1":
                raise ValueError("not yet")
            return super().evolve(row, recorded)

    picky = Projector(here.dsn, here.log, Picky(), here.decoding, timing=QUICK)
    async with picky.running():
        await here.reached(await history(here, "g1"))
        assert (await picky.health()).parked == 1
    async with here.projector().running():
        await only(here, "g1")
        await here.reached(await here.say("g1", media_stored(1)))
    assert same_as(await here.folded(), await here.rows())


async def test_tables_of_another_version_are_left_alone(here: World) -> None:
    await history(here, "g1")
    with pytest.raises(SchemaOutdated, match="has no tables"):
        await only(here, "g1")
    await replay(here.dsn, here.log, NewerModel(), here.decoding)
    with pytest.raises(SchemaOutdated, match="velro replay generation"):
        await only(here, "g1")


async def test_the_backlog_is_put_right_too(here: World) -> None:
    model = BacklogModel()
    await history(here, "g1", "ann")
    await history(here, "g2", "ann")
    await replay(here.dsn, here.log, model, here.decoding)
    connection = await here.connection(model.name)
    query = "select generation_id, output_index, user_id, state, attempts, sha256 from backlog"
    before = await connection.fetch(f"{query} order by 1, 2")
    await connection.execute("update backlog set user_id = 'x' where generation_id = 'g1'")
    await connection.execute("delete from backlog where generation_id = 'g2'")
    found = await generations_of(here.dsn, here.log, model, here.decoding, "ann")
    assert found == ["g1", "g2"]
    await rebuild_only(here.dsn, here.log, model, here.decoding, found)
    assert await connection.fetch(f"{query} order by 1, 2") == before
    await connection.close()
    comparison = (await replay(here.dsn, here.log, model, here.decoding)).comparison
    assert comparison is not None
    assert comparison.same
