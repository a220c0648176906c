"""A rebuild divided among several processes comes to the rows of one."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from generation_svc.read_model.model import NAME
from shared.errors import VelroError
from shared.postgres.connecting import connect
from shared.projection.applying import Poison
from shared.projection.errors import PartFailed, PoisonedEvent
from shared.projection.parked import ParkingPlace
from shared.projection.rebuild import Progress, Rebuilt, replay
from shared.projection.rebuild_part import part_of
from shared.projection.rebuild_plan import plan
from storage_svc.read_model.model import NAME as STORAGE
from storage_svc.read_model.model import BacklogModel
from tests.generation_events import (
    REQUESTED,
    STARTED,
    SUBMITTED,
    completed,
    media_stored,
    migrated,
    storage_failed,
)
from tests.projecting import World, same_as, until_answered, world

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asyncpg import Connection, Record

    from shared.contracts.events import AnyEvent
    from shared.contracts.subjects import Subjects

BEGINNING = (REQUESTED, STARTED, SUBMITTED)
STORED = (media_stored(1), media_stored(0), migrated(2))
HISTORIES: tuple[tuple[AnyEvent, ...], ...] = (
    (*BEGINNING, completed("link", "link"), storage_failed(0, 1), *STORED),
    (*BEGINNING, completed("link"), storage_failed(0)),
    (REQUESTED, STARTED),
    (completed("link"), media_stored(0)),
)

CONNECTED = f"from pg_stat_activity where application_name = 'velro replay {NAME}'"


@pytest.fixture
async def here(
    nats_url: str,
    stream: str,
    subjects: Subjects,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncGenerator[World]:
    # Small, so that every part writes several times, and is at another place than the others.
    monkeypatch.setattr("shared.projection.rebuild_catching_up._PARTS_EVENTS", 20)
    monkeypatch.setattr("shared.projection.rebuild._NEAR_EVENTS", 10)
    monkeypatch.setattr("shared.projection.rebuild_bulk.ROWS_A_LOT", 3)
    async with world(nats_url, stream, subjects, database, batch=7) as made:
        yield made


async def mixed_history(here: World, generations: int, *, seed: int = 1) -> int:
    """Events of many generations, one after the other in no order but their own."""
    rng = random.Random(seed)  # noqa: S311 - a workload
    left = {f"s{seed}g{n}": list(HISTORIES[n % len(HISTORIES)]) for n in range(generations)}
    position = 0
    while left:
        generation_id = rng.choice(list(left))
        position = await here.say(generation_id, left[generation_id].pop(0))
        if not left[generation_id]:
            del left[generation_id]
    return position


async def replayed(here: World, processes: int, **options: Any) -> Rebuilt:  # noqa: ANN401 - of `replay`
    return await replay(
        here.dsn, here.log, here.model, here.decoding, processes=processes, **options
    )


async def backlog(here: World, processes: int) -> list[dict[str, Any]]:
    """The storage read model's rows, but for the turn, which is an order among equals."""
    await replay(here.dsn, here.log, BacklogModel(), here.decoding, processes=processes)
    connection = await connect(here.dsn, schema=STORAGE, application_name="test")
    rows = await connection.fetch("select * from backlog order by generation_id, output_index")
    await connection.close()
    return [{**row, "turn": None} for row in rows]


async def until_true(connection: Connection[Record], query: str) -> None:
    async def answer() -> bool:
        # What a transaction has seen of who is connected, it sees again.
        await connection.execute("select pg_stat_clear_snapshot()")
        return bool(await connection.fetchval(query))

    await until_answered(answer)


def test_every_event_of_a_generation_belongs_to_one_part(subjects: Subjects) -> None:
    parts = set[int]()
    for number in range(50):
        generation, storage = subjects.generation(f"g{number}"), subjects.storage(f"g{number}")
        assert part_of(generation, 3) == part_of(storage, 3)
        parts.add(part_of(generation, 3))
    assert parts == {0, 1, 2}


@pytest.mark.parametrize("processes", [2, 3])
async def test_several_processes_come_to_the_rows_of_one(here: World, processes: int) -> None:
    end = await mixed_history(here, 40)
    await replayed(here, 1)
    alone = await here.rows()
    assert same_as(await here.folded(), alone)
    seen: list[Progress] = []
    rebuilt = await replayed(here, processes, on_progress=seen.append)
    assert await here.rows() == alone
    done = [progress.done for progress in seen]
    assert done == sorted(done)
    assert rebuilt.position == done[-1] == seen[-1].total == end
    assert rebuilt.comparison is not None
    assert rebuilt.comparison.same
    assert await here.schemas() == {NAME, f"{NAME}_previous"}


@pytest.mark.parametrize("processes", [2, 3])
async def test_several_processes_come_to_the_backlog_of_one(here: World, processes: int) -> None:
    await mixed_history(here, 40)
    alone = await backlog(here, 1)
    assert alone
    assert await backlog(here, processes) == alone


async def test_what_was_cut_off_is_gone_on_with_by_any_number_of_processes(here: World) -> None:
    class CutOff(VelroError):
        pass

    cut_at = 0

    def cut_off(progress: Progress) -> None:
        if progress.done > cut_at:
            raise CutOff

    end = 0
    for processes in (2, 3):
        # Behind all that any part can have come to before.
        cut_at = end + 60
        end = await mixed_history(here, 40, seed=processes)
        with pytest.raises(CutOff):
            await replayed(here, processes, on_progress=cut_off)
    made = await plan(here.dsn, here.log, here.model, here.decoding)
    assert made.begins_at > 0
    await mixed_history(here, 10)
    rebuilt = await replayed(here, 1)
    assert rebuilt.began_at == made.begins_at
    assert same_as(await here.folded(), await here.rows())


async def test_an_event_that_cannot_be_applied_stops_all_of_them_and_is_named(here: World) -> None:
    await mixed_history(here, 12)
    subject = here.subjects.storage("s1g5")
    position = await here.say_bytes(subject, b'{"type": "torn"}')
    await mixed_history(here, 12, seed=2)
    with pytest.raises(PoisonedEvent) as raised:
        await replayed(here, 2)
    for said in (f"position {position} ", subject, "torn"):
        assert said in str(raised.value)
    assert await here.schemas() == set()
    assert (await replayed(here, 2, poison=Poison.PARK)).parked == 1
    assert len(await here.rows()) == 24


async def test_what_was_discarded_is_left_out_by_every_process(here: World) -> None:
    await mixed_history(here, 12)
    position = await here.say_bytes(here.subjects.storage("s1g5"), b'{"type": "torn"}')
    async with here.projector().running():
        await here.reached(await mixed_history(here, 12, seed=2))
    connection = await here.connection()
    parking = ParkingPlace(connection, here.model, here.log, here.decoding)
    await parking.discard("s1g5", why="it is torn", by="ann")
    await connection.close()
    before = await here.rows()
    rebuilt = await replayed(here, 2)
    assert rebuilt.parked == 0
    assert rebuilt.position > position
    assert await here.rows() == before


async def test_a_process_that_loses_its_database_says_so_in_one_sentence(here: World) -> None:
    await mixed_history(here, 40)
    await replayed(here, 1)
    before = await here.rows()
    connection = await here.connection(f"{NAME}_rebuild")

    async def end_them() -> None:
        """Once all are connected, and before any of them can have ended by itself."""
        await until_true(connection, "select to_regclass('rebuild_parts') is not null")
        await until_true(connection, "select count(*) = 2 from rebuild_parts")
        async with connection.transaction():
            await connection.execute("lock table rebuild_parts in share mode")
            await until_true(connection, f"select count(*) = 6 {CONNECTED}")
            # All but the two of the process that owns the others, which connected first.
            ended = f"(select pid {CONNECTED} order by backend_start offset 2) as of_parts"
            await connection.execute(f"select pg_terminate_backend(pid) from {ended}")  # noqa: S608 - our own names

    ending = asyncio.create_task(end_them())
    said = r"^process \d of 2 .* Postgres is away: .* goes on from here$"
    with pytest.raises(PartFailed, match=said):
        await replayed(here, 2)
    await ending
    await connection.close()
    assert await here.rows() == before
    await replayed(here, 2)
    assert await here.rows() == before


async def test_a_plan_is_measured_with_as_many_processes_as_will_run(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.projection.rebuild_plan._SAMPLE_EVENTS", 30)
    end = await mixed_history(here, 40)
    made = await plan(here.dsn, here.log, here.model, here.decoding, processes=2)
    assert (made.processes, made.sampled, made.events) == (2, 60, end)
    assert made.predicted_s > made.starting_s > 0
    assert [(table.name, table.rows > 0) for table in made.tables] == [("generations", True)]
    alone = await plan(here.dsn, here.log, here.model, here.decoding, processes=1)
    assert (alone.processes, alone.sampled) == (1, 30)
    assert await here.schemas() == set()
