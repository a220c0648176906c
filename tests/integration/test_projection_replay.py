"""A read model is rebuilt beside the one that serves, and takes its place whole or not at all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from generation_svc.read_model.model import NAME
from shared.event_log.jetstream_stream import StreamDeclaration, ensure_stream
from shared.messaging.jetstream import jetstream_of
from shared.projection.applying import Poison
from shared.projection.errors import AnotherIsActive, PoisonedEvent, RebuildDiffers
from shared.projection.rebuild import Progress, Rebuilt, replay
from shared.projection.rebuild_undo import undo
from shared.projection.runner import Projector, ProjectorState
from tests.generation_events import (
    REQUESTED,
    STARTED,
    SUBMITTED,
    completed,
    media_stored,
    migrated,
    storage_failed,
)
from tests.projecting import QUICK, World, same_as, table, until_state, world
from tests.read_models import NewerModel

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, MutableMapping, Sequence

    from shared.contracts.subjects import Subjects


@pytest.fixture
async def here(
    nats_url: str, stream: str, subjects: Subjects, database: str
) -> AsyncGenerator[World]:
    async with world(nats_url, stream, subjects, database) as made:
        yield made


async def some_history(here: World, *generation_ids: str) -> int:
    position = 0
    for generation_id in generation_ids:
        await here.say(generation_id, REQUESTED, STARTED, SUBMITTED, completed("link", "link"))
        await here.say(generation_id, storage_failed(0, 1), media_stored(1), media_stored(0))
        position = await here.say(generation_id, migrated(2))
    return position


async def replayed(here: World, **options: Any) -> Rebuilt:  # noqa: ANN401 - of `replay`
    return await replay(here.dsn, here.log, here.model, here.decoding, **options)


async def test_rebuilt_rows_equal_the_rows_projected_live(here: World) -> None:
    async with here.projector().running():
        await here.reached(await some_history(here, "g1", "g2", "g3"))
    live = await here.rows()
    seen: list[Progress] = []
    rebuilt = await replayed(here, on_progress=seen.append)
    assert await here.rows() == live
    assert rebuilt.position == seen[-1].done == seen[-1].total == 24
    assert seen[0].done == 0
    assert seen[-1].events_per_s > 0
    assert seen[-1].left_s == 0
    assert await here.schemas() == {NAME, f"{NAME}_previous"}


async def test_a_read_model_that_never_was_is_built(here: World) -> None:
    await some_history(here, "g1")
    await replayed(here)
    assert same_as(await here.folded(), await here.rows())


async def test_an_empty_log_makes_empty_tables(here: World) -> None:
    await replayed(here)
    assert await here.rows() == {}


async def test_while_services_run_and_write_no_reader_sees_a_gap(here: World) -> None:
    async with here.projector().running():
        await here.reached(await some_history(here, "g0"))
        reader = await here.connection()
        stop = asyncio.Event()
        seen: list[int] = []

        async def write() -> int:
            number = 0
            while not stop.is_set():
                number += 1
                await some_history(here, f"w{number}")
            return await some_history(here, "last")

        async def read() -> None:
            while not stop.is_set():
                seen.append(len(await table(reader)))

        writing, reading = asyncio.create_task(write()), asyncio.create_task(read())
        try:
            for _ in range(5):
                await replayed(here)
        finally:
            stop.set()
            last = await writing
            await reading
        await here.reached(last)
        await reader.close()
        assert seen == sorted(seen)
        assert seen[0] >= 1
        assert same_as(await here.folded(), await here.rows())


async def test_an_event_that_cannot_be_applied_stops_it_and_leaves_everything_as_it_was(
    here: World,
) -> None:
    async with here.projector().running():
        await some_history(here, "g1")
        position = await here.say_bytes(here.subjects.storage("g1"), b'{"type": "torn"}')
        await here.reached(await some_history(here, "g2"))
        before = await here.rows()
        with pytest.raises(PoisonedEvent) as raised:
            await replayed(here)
        assert str(position) in str(raised.value)
        assert here.subjects.storage("g1") in str(raised.value)
        assert "torn" in str(raised.value)
        assert await here.rows() == before
        assert await here.schemas() == {NAME}
        await here.reached(await some_history(here, "g3"))


async def test_it_may_be_told_to_park_instead(here: World) -> None:
    await some_history(here, "g1")
    await here.say_bytes(here.subjects.storage("g1"), b"?")
    await some_history(here, "g2")
    assert (await replayed(here, poison=Poison.PARK)).parked == 1
    assert set(await here.rows()) == {"g1", "g2"}


async def test_what_is_parked_is_an_alert_of_the_service_and_a_number_of_a_command(
    here: World,
) -> None:
    def alerts(lines: Sequence[MutableMapping[str, Any]]) -> int:
        return sum(line["event"] == "event_parked" for line in lines)

    with capture_logs() as lines:
        async with here.projector().running():
            await here.reached(await some_history(here, "g1"))
            await here.reached(await here.say_bytes(here.subjects.storage("g1"), b"?"))
    assert alerts(lines) == 1
    await replayed(here, poison=Poison.PARK)
    await here.say_bytes(here.subjects.storage("g1"), b"?")
    with capture_logs() as lines:
        assert (await replayed(here, poison=Poison.PARK)).parked == 2
        assert (await undo(here.dsn, here.log, here.model, here.decoding)).parked == 2
    assert alerts(lines) == 0


async def test_two_rebuilds_of_one_read_model_do_not_run_at_once(here: World) -> None:
    await some_history(here, "g1")
    holder = await here.connection()
    await holder.execute(
        "select pg_advisory_lock(hashtextextended('velro projector generation_rebuild', 0))"
    )
    with pytest.raises(AnotherIsActive, match="another rebuild"):
        await replayed(here, lock_timeout_s=0.05)
    await holder.close()
    await replayed(here)
    assert set(await here.rows()) == {"g1"}


async def test_a_rebuild_that_is_cut_off_leaves_the_old_serving_and_can_be_repeated(
    here: World,
) -> None:
    async with here.projector().running():
        await here.reached(await some_history(here, "g1"))
    before = await here.rows()

    class CutOff(Exception):
        pass

    def cut_off(progress: Progress) -> None:
        if progress.done:
            raise CutOff

    with pytest.raises(CutOff):
        await replayed(here, on_progress=cut_off)
    assert await here.rows() == before
    assert await here.schemas() == {NAME, f"{NAME}_rebuild"}
    seen: list[Progress] = []
    rebuilt = await replayed(here, on_progress=seen.append)
    assert rebuilt.began_at == seen[0].done == rebuilt.position
    assert await here.rows() == before


async def test_what_no_rebuild_could_have_left_is_begun_anew(here: World) -> None:
    await some_history(here, "g1")
    connection = await here.connection()
    await connection.execute("create schema generation_rebuild")
    await connection.execute("create table generation_rebuild.generations (id text)")
    await connection.close()
    assert (await replayed(here)).began_at == 0
    assert same_as(await here.folded(), await here.rows())


async def test_tables_of_an_older_version_are_replaced_while_the_new_service_waits(
    here: World,
) -> None:
    async with here.projector().running():
        await here.reached(await some_history(here, "g1"))
    newer = NewerModel()
    projector = Projector(here.dsn, here.log, newer, here.decoding, timing=QUICK)
    async with projector.running():
        await until_state(projector, ProjectorState.REFUSING)
        await replay(here.dsn, here.log, newer, here.decoding)
        await until_state(projector, ProjectorState.PROJECTING)
        await here.reached(await some_history(here, "g2"))
    rows = await here.rows()
    assert set(rows) == {"g1", "g2"}
    assert "newer" in rows["g1"]


async def test_tables_of_a_log_that_is_gone_are_replaced_once_somebody_says_so(
    here: World,
) -> None:
    async with here.projector().running():
        await here.reached(await some_history(here, "g1", "g2"))
    await jetstream_of(here.nats).delete_stream(here.stream)
    await ensure_stream(here.nats, StreamDeclaration(name=here.stream, subjects=here.subjects))
    end = await some_history(here, "g3")
    projector = here.projector()
    async with projector.running():
        await until_state(projector, ProjectorState.REFUSING)
        with pytest.raises(RebuildDiffers, match="--accept-differences"):
            await replayed(here)
        assert set(await here.rows()) == {"g1", "g2"}
        assert (await replayed(here, accept_differences=True)).position == end
        await until_state(projector, ProjectorState.PROJECTING)
        await here.reached(await some_history(here, "g4"))
    assert set(await here.rows()) == {"g3", "g4"}
    assert same_as(await here.folded(), await here.rows())
