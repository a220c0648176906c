"""A projector keeps a read model as the log says, alone, and knows when it must not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from generation_svc.read_model.model import NAME, GenerationModel
from shared.event_log.jetstream_stream import StreamDeclaration, ensure_stream
from shared.event_log.port import LogUnavailable
from shared.messaging.jetstream import jetstream_of
from shared.projection.applying import Applier, Poison
from shared.projection.errors import SchemaOutdated, Superseded
from shared.projection.runner import ProjectorState
from shared.projection.standing import ProjectorTiming
from shared.projection.tables import ensure, read_checkpoint
from tests.generation_events import (
    CANCELLED,
    REQUESTED,
    STARTED,
    SUBMITTED,
    completed,
    media_stored,
    migrated,
    storage_failed,
)
from tests.projecting import WAIT_S, World, same_as, until, until_answered, until_state, world

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from generation_svc.read_model.rows import GenerationRow
    from shared.contracts.subjects import Subjects
    from shared.projection.runner import Projector


@pytest.fixture
async def here(
    nats_url: str, stream: str, subjects: Subjects, database: str
) -> AsyncGenerator[World]:
    async with world(nats_url, stream, subjects, database) as made:
        yield made


async def test_what_both_services_say_becomes_rows(here: World) -> None:
    await here.say("g1", REQUESTED, STARTED, SUBMITTED)
    async with here.projector().running():
        await here.say("g1", completed("link", "link"), storage_failed(0, 1))
        await here.say("g2", completed("bucket"))
        await here.reached(await here.say("g1", media_stored(1)))
        rows = await here.rows()
        assert (rows["g1"]["status"], rows["g1"]["storage_state"]) == ("completed", "partial")
        assert rows["g1"]["storage_retry_needed"]
        assert rows["g1"]["fal_urls_temporary"]
        assert rows["g1"]["requires_background_migration"]
        assert not rows["g1"]["storage_successful"]

        await here.reached(await here.say("g1", media_stored(0), migrated(2)))
        rows = await here.rows()
        assert rows["g1"]["storage_state"] == "stored"
        assert not rows["g1"]["storage_retry_needed"]
        assert not rows["g1"]["fal_urls_temporary"]
        assert not rows["g1"]["requires_background_migration"]
        assert rows["g1"]["storage_successful"]
        assert rows["g1"]["total_migrated_size"] == 21
        assert rows["g1"]["migration_file_count"] == 2
        assert same_as(await here.folded(), rows)


async def test_it_goes_on_where_it_stopped(here: World) -> None:
    async with here.projector().running():
        await here.reached(await here.say("g1", REQUESTED))
    await here.say("g1", STARTED, SUBMITTED)
    async with here.projector().running():
        await here.reached(await here.say("g1", completed("link")))
    assert same_as(await here.folded(), await here.rows())


async def test_one_projects_and_the_other_takes_over_when_it_ends(here: World) -> None:
    first, second = here.projector(), here.projector()
    async with first.running() as task:
        await until_state(first, ProjectorState.PROJECTING)
        async with second.running():
            await until_state(second, ProjectorState.STANDING_BY)
            await here.reached(await here.say("g1", REQUESTED))
            assert second.state is ProjectorState.STANDING_BY
            first.stop()
            await task
            await until_state(second, ProjectorState.PROJECTING)
            await here.reached(await here.say("g1", STARTED))


async def test_a_lock_lost_with_its_connection_lets_the_other_take_over(here: World) -> None:
    first, second = here.projector(), here.projector()
    async with first.running():
        await until_state(first, ProjectorState.PROJECTING)
        async with second.running():
            await until_state(second, ProjectorState.STANDING_BY)
            admin = await here.connection()
            await admin.execute(
                "select pg_terminate_backend(pid) from pg_locks"
                " where locktype = 'advisory' and granted and database ="
                " (select oid from pg_database where datname = current_database())"
            )
            await admin.close()
            await until(lambda: ProjectorState.PROJECTING in {first.state, second.state})
            await here.reached(await here.say("g1", REQUESTED, STARTED))
            await until(
                lambda: (
                    {first.state, second.state}
                    == {ProjectorState.PROJECTING, ProjectorState.STANDING_BY}
                )
            )
    assert same_as(await here.folded(), await here.rows())


async def test_a_writer_whose_checkpoint_was_moved_writes_nothing(here: World) -> None:
    await here.say("g1", REQUESTED)
    connection = await here.connection()
    checkpoint = await ensure(connection, NAME, here.model)
    [records] = [records async for records in here.log.read(after=0, until=1)]
    batch = await here.decoding.batch(records)
    applier = Applier(connection, NAME, here.model, poison=Poison.PARK)
    await applier.begin()
    moved = await applier.apply(batch, checkpoint)
    with pytest.raises(Superseded):
        await applier.apply(batch, checkpoint)
    assert await read_checkpoint(connection) == moved
    await connection.close()


async def test_a_projector_that_was_superseded_goes_on_from_the_new_checkpoint(
    here: World,
) -> None:
    projector = here.projector()
    async with projector.running():
        await here.reached(await here.say("g1", REQUESTED))
        other = await here.connection()
        await other.execute("update projection_checkpoint set incarnation = gen_random_uuid()")
        await other.close()
        await here.reached(await here.say("g1", STARTED))
        assert projector.state is ProjectorState.PROJECTING
    assert same_as(await here.folded(), await here.rows())


async def test_tables_that_are_dropped_beneath_it_are_made_again_from_the_log(
    here: World,
) -> None:
    async with here.projector().running():
        await here.reached(await here.say("g1", REQUESTED))
        admin = await here.connection()
        await admin.execute(f"drop schema {NAME} cascade")
        await admin.close()
        await here.reached(await here.say("g1", STARTED))
    assert same_as(await here.folded(), await here.rows())


async def test_an_event_that_cannot_be_read_is_parked_with_its_generation_and_the_others_flow(
    here: World,
) -> None:
    projector = here.projector()
    async with projector.running():
        await here.say("g1", REQUESTED)
        poison = await here.say_bytes(here.subjects.generation("g1"), b'{"type": "torn"}')
        await here.say("g2", REQUESTED)
        await here.reached(await here.say("g1", STARTED))
        later = await here.say("g1", SUBMITTED)
        await here.reached(await here.say("g2", STARTED))
        await until_healthy(projector, parked=3, lag=0)
    rows = await here.rows()
    assert (rows["g1"]["status"], rows["g2"]["status"]) == ("requested", "submitting")
    connection = await here.connection()
    parked = await connection.fetch("select * from parked_events order by position")
    await connection.close()
    assert [(event["position"], event["generation_id"]) for event in parked] == [
        (poison, "g1"),
        (later - 1, "g1"),
        (later, "g1"),
    ]
    assert parked[0]["subject"] == here.subjects.generation("g1")
    assert parked[0]["event_type"] == "torn"
    assert parked[0]["reason"]
    assert str(poison) in parked[1]["reason"]


async def test_parked_generations_stay_parked_after_a_restart(here: World) -> None:
    async with here.projector().running():
        await here.say("g1", REQUESTED)
        await here.reached(await here.say_bytes(here.subjects.generation("g1"), b"?"))
    projector = here.projector()
    async with projector.running():
        await here.reached(await here.say("g1", STARTED))
        await until_healthy(projector, parked=2, lag=0)
    assert (await here.rows())["g1"]["status"] == "requested"


async def test_a_row_that_postgres_refuses_is_parked_from_the_event_that_made_it(
    here: World,
) -> None:
    # A text with a NUL in a column of its own is such a thing.
    poison = REQUESTED.model_copy(update={"model": "a\0b"})
    await here.say("g0", REQUESTED, STARTED)
    await here.say("g1", poison, STARTED)
    await here.say("g2", REQUESTED, SUBMITTED.model_copy(update={"request_id": "\0"}), CANCELLED)
    end = await here.say("g3", REQUESTED)
    projector = here.projector()
    async with projector.running():
        await here.reached(end)
        await until_healthy(projector, parked=4, lag=0)
    rows = await here.rows()
    assert {generation_id: row["status"] for generation_id, row in rows.items()} == {
        "g0": "submitting",
        "g2": "requested",
        "g3": "requested",
    }


async def test_a_prompt_with_a_nul_hides_nothing(here: World) -> None:
    projector = here.projector()
    async with projector.running():
        await here.reached(await here.say("g1", REQUESTED))  # its prompt holds one
        await until_healthy(projector, parked=0, lag=0)
    assert "\\u0000" in (await here.rows())["g1"]["input"]


class NewerModel(GenerationModel):
    """The next version of the same read model."""

    @property
    def schema_sql(self) -> str:
        return super().schema_sql + "\n-- version 2 of the fold"


async def test_tables_of_another_version_are_refused_with_the_command_to_run(here: World) -> None:
    connection = await here.connection()
    await ensure(connection, NAME, here.model)
    with pytest.raises(SchemaOutdated, match="velro replay generation"):
        await ensure(connection, NAME, NewerModel())
    await connection.close()


async def test_a_log_that_was_made_anew_is_noticed_and_not_mixed_in(
    here: World,
) -> None:
    async with here.projector().running():
        await here.reached(await here.say("g1", REQUESTED, STARTED))
    before = await here.rows()
    await jetstream_of(here.nats).delete_stream(here.stream)
    await ensure_stream(here.nats, StreamDeclaration(name=here.stream, subjects=here.subjects))

    projector = here.projector()
    async with projector.running():
        await until_state(projector, ProjectorState.REFUSING)  # it ends before the checkpoint
        health = await projector.health()
        assert health.reason is not None
        assert "ends at position 0" in health.reason
        await here.say("g2", REQUESTED, STARTED, SUBMITTED)

        async def another_log() -> bool:
            return "another log" in ((await projector.health()).reason or "")

        await until_answered(another_log)
    assert await here.rows() == before


async def test_a_stream_made_anew_under_a_running_projector_stops_it(here: World) -> None:
    projector = here.projector()
    async with projector.running():
        await here.reached(await here.say("g1", REQUESTED, STARTED, SUBMITTED))
        await jetstream_of(here.nats).delete_stream(here.stream)
        await ensure_stream(here.nats, StreamDeclaration(name=here.stream, subjects=here.subjects))
        await here.say("g2", REQUESTED)
        await until_state(projector, ProjectorState.REFUSING)
    assert set(await here.rows()) == {"g1"}


async def test_a_log_that_comes_back_as_another_is_told_before_the_projector_has_looked(
    here: World,
) -> None:
    projector = here.projector()
    projector.timing = ProjectorTiming(first_pause_s=60, longest_pause_s=60)
    async with projector.running():
        await here.reached(await here.say("g1", REQUESTED, STARTED))
        await jetstream_of(here.nats).delete_stream(here.stream)
        await until_state(projector, ProjectorState.WAITING)
        with pytest.raises(LogUnavailable):
            await projector.other_log()
        await ensure_stream(here.nats, StreamDeclaration(name=here.stream, subjects=here.subjects))
        assert "ends at position 0" in str(await projector.other_log())
        await here.say("g2", REQUESTED, STARTED, SUBMITTED)
        assert "another log" in str(await projector.other_log())
        assert projector.state is ProjectorState.WAITING


async def test_stopping_finishes_the_batch_that_is_being_written(here: World) -> None:
    projector = here.projector()
    blocker = await here.connection()
    async with asyncio.timeout(WAIT_S):
        async with projector.running():
            await here.reached(await here.say("g1", REQUESTED))
            transaction = blocker.transaction()
            await transaction.start()
            await blocker.execute("lock table generations in share row exclusive mode")
            position = await here.say("g1", STARTED)
            await until_blocked(here)
            projector.stop()
            await transaction.rollback()
        connection = await here.connection()
        assert (await read_checkpoint(connection)).position == position
        await connection.close()
        await blocker.close()
    assert projector.state is ProjectorState.STOPPED


async def until_healthy(projector: Projector[GenerationRow], *, parked: int, lag: int) -> None:
    # Readers hear of a commit from Postgres, perhaps before the projector hears of its own.
    async def is_so() -> bool:
        health = await projector.health()
        return (health.parked, health.lag) == (parked, lag)

    await until_answered(is_so)


async def until_blocked(here: World) -> None:
    looking = await here.connection()

    async def blocked() -> bool:
        waiting = "select count(*) from pg_locks where not granted and relation is not null"
        return bool(await looking.fetchval(waiting))

    await until_answered(blocked)
    await looking.close()
