"""A rebuild is compared with what serves, at one position, before it takes its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from shared.projection.errors import PoisonedEvent, RebuildDiffers
from shared.projection.rebuild import Rebuilt, replay
from shared.projection.rebuild_compare import ComparedTable
from storage_svc.read_model.model import BacklogModel
from tests.generation_events import REQUESTED, STARTED, SUBMITTED, completed, media_stored, migrated
from tests.projecting import World, same_as, world
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


async def history(here: World, *generation_ids: str) -> int:
    for generation_id in generation_ids:
        await here.say(generation_id, REQUESTED, STARTED, SUBMITTED, completed("link", "link"))
    for generation_id in generation_ids:
        await here.say(generation_id, media_stored(0), media_stored(1), migrated(2))
    return await here.log.last_position()


async def rebuilt(here: World, **options: Any) -> Rebuilt:  # noqa: ANN401 - of `replay`
    return await replay(here.dsn, here.log, here.model, here.decoding, **options)


async def damage(here: World, statement: str) -> None:
    connection = await here.connection()
    await connection.execute(statement)
    await connection.close()


async def test_what_is_the_same_is_said_to_be(here: World) -> None:
    async with here.projector().running():
        position = await history(here, "g1", "g2")
        await here.reached(position)
        comparison = (await rebuilt(here)).comparison
    assert comparison is not None
    assert comparison.position == position
    assert comparison.same_version
    assert comparison.tables == (ComparedTable("generations", 2, 2, 0),)
    assert "2 rows serve, 2 were rebuilt, with the same content" in str(comparison.tables[0])


async def test_rows_that_differ_are_named_and_nothing_is_switched_until_that_is_accepted(
    here: World,
) -> None:
    async with here.projector().running():
        await here.reached(await history(here, "g1", "g2", "g3"))
    await damage(here, "update generations set user_id = 'somebody' where id = 'g2'")
    await damage(here, "delete from generations where id = 'g3'")
    damaged = await here.rows()
    with pytest.raises(RebuildDiffers, match="--accept-differences") as raised:
        await rebuilt(here)
    assert "2 rows serve, 3 were rebuilt, 2 differ, such as g2, g3" in str(raised.value)
    assert await here.rows() == damaged
    accepted = await rebuilt(here, accept_differences=True)
    assert accepted.began_at == accepted.position  # what was built was not built again
    assert accepted.comparison is not None
    assert not accepted.comparison.same
    assert same_as(await here.folded(), await here.rows())


async def test_tables_that_stand_behind_the_log_are_compared_where_they_stand(here: World) -> None:
    async with here.projector().running():
        position = await history(here, "g1")
        await here.reached(position)
    end = await history(here, "g2")
    done = await rebuilt(here)
    assert done.comparison is not None
    assert done.comparison.same
    assert done.comparison.position == position
    assert done.position == end


async def test_columns_that_are_others_are_counted_and_may_differ(here: World) -> None:
    async with here.projector().running():
        await here.reached(await history(here, "g1", "g2"))
    await damage(here, "delete from generations where id = 'g2'")
    done = await replay(here.dsn, here.log, NewerModel(), here.decoding)
    assert done.comparison is not None
    assert not done.comparison.same_version
    assert done.comparison.tables == (ComparedTable("generations", 1, 2, None),)
    assert "no content was compared" in str(done.comparison.tables[0])


async def test_who_works_on_an_output_is_not_compared(here: World) -> None:
    model = BacklogModel()
    await here.say("g1", REQUESTED, STARTED, SUBMITTED, completed("link", "link"))
    await replay(here.dsn, here.log, model, here.decoding)
    connection = await here.connection(model.name)
    await connection.execute("update backlog set lease_owner = 'w', lease_until = now()")
    await connection.close()
    done = await replay(here.dsn, here.log, model, here.decoding)
    assert done.comparison is not None
    assert done.comparison.same


@pytest.fixture
def in_bulk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes that make a few events many."""
    monkeypatch.setattr("shared.projection.rebuild_catching_up._BULK_EVENTS", 3)
    monkeypatch.setattr("shared.projection.rebuild._NEAR_EVENTS", 2)
    monkeypatch.setattr("shared.projection.rebuild_bulk.ROWS_A_LOT", 2)


@pytest.mark.usefixtures("in_bulk")
async def test_rows_written_behind_are_those_written_batch_by_batch(
    here: World, nats_url: str
) -> None:
    async with here.projector().running():
        await here.reached(await history(here, *(f"g{number}" for number in range(9))))
        async with world(nats_url, here.stream, here.subjects, here.dsn, batch=4) as small:
            done = await rebuilt(small)
        assert done.comparison is not None
        assert done.comparison.same
        await here.reached(await history(here, "last"))
    assert same_as(await here.folded(), await here.rows())


@pytest.mark.usefixtures("in_bulk")
@pytest.mark.parametrize("poison", [b"?", None], ids=["unreadable", "not storable"])
async def test_what_cannot_be_applied_in_bulk_is_named_as_it_is_one_by_one(
    here: World, nats_url: str, poison: bytes | None
) -> None:
    await history(here, "g1", "g2", "g3")
    if poison is not None:
        position = await here.say_bytes(here.subjects.storage("g2"), poison)
    else:
        position = await here.say("g4", REQUESTED.model_copy(update={"model": "a\0b"}))
    await history(here, "g5", "g6")
    async with world(nats_url, here.stream, here.subjects, here.dsn, batch=4) as small:
        with pytest.raises(PoisonedEvent, match=f"position {position}") as raised:
            await rebuilt(small)
    assert f"{here.subjects.root}." in str(raised.value)
