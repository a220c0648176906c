"""Workers on a real log and a real backlog: order, sharing, outages, stopping."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from shared.contracts.reasons import ReasonCode
from shared.contracts.storage_events import (
    MediaLost,
    MediaStored,
    MigrationAttemptFailed,
    MigrationCompleted,
)
from shared.media.copying import CopyFailed
from storage_svc.application.recording import Recorder
from storage_svc.application.workers import RELEASE_EVERY_S
from storage_svc.domain.circuit import TRIPS_AFTER
from storage_svc.domain.commands import RecordAttemptFailed
from tests.storage_world import DEADLINE_S, PretendedCopier, World, now, open_world

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from datetime import datetime

    from shared.media.copying import CopyOrder

MINUTE = timedelta(minutes=1)


@pytest.fixture
async def world(
    nats_url: str, subject_root: str, stream: str, database: str
) -> AsyncGenerator[World]:
    async with open_world(
        nats_url=nats_url, subject_root=subject_root, stream=stream, database=database
    ) as opened:
        yield opened


async def test_the_backlog_drains_in_the_order_in_which_links_die(world: World) -> None:
    for number in (3, 1, 4, 0, 5, 2):
        await world.completed(f"g{number}", dies_in=(10 + number) * MINUTE)
    await world.level()
    copier = PretendedCopier()
    assert await world.workers(copier, concurrency=1).run_batch(50) == 6
    assert copier.names() == ["g0", "g1", "g2", "g3", "g4", "g5"]
    await world.until_pending(0)


async def test_an_event_is_acted_on_at_once(world: World) -> None:
    copier = PretendedCopier()
    async with world.at_work(world.workers(copier)):
        await world.completed("g", outputs=3)
        await world.until_pending(0)
        await world.level()
    said = await world.said("g")
    assert [type(event) for event in said] == [MediaStored] * 3 + [MigrationCompleted]


async def test_a_batch_takes_no_more_than_it_may(world: World) -> None:
    for number in range(5):
        await world.completed(f"g{number}", dies_in=(10 + number) * MINUTE)
    await world.level()
    copier = PretendedCopier()
    assert await world.workers(copier).run_batch(2) == 2
    assert sorted(copier.names()) == ["g0", "g1"]
    await world.until_pending(3)


async def test_no_more_run_at_once_than_may(world: World) -> None:
    async def slowly(_order: CopyOrder) -> None:
        await asyncio.sleep(0)

    for number in range(12):
        await world.completed(f"g{number}")
    await world.level()
    copier = PretendedCopier(slowly)
    await world.workers(copier, concurrency=3).run_batch(50)
    assert copier.most_at_once <= 3
    assert len(copier.orders) == 12


async def test_two_processes_at_once_do_no_work_twice(world: World) -> None:
    for number in range(40):
        await world.completed(f"g{number}")
    await world.level()
    copier = PretendedCopier()
    taken = await asyncio.gather(*(world.workers(copier).run_batch(50) for _ in range(4)))
    assert sum(taken) == 40
    assert len(set(copier.names())) == len(copier.orders) == 40
    for number in range(40):
        said = await world.said(f"g{number}")
        assert [type(event) for event in said] == [MediaStored, MigrationCompleted]


async def test_a_worker_that_died_holds_its_output_no_longer_than_its_lease(world: World) -> None:
    await world.completed("g")
    await world.level()
    hanging = asyncio.Event()
    reached = asyncio.Event()

    async def hang(_order: CopyOrder) -> None:
        reached.set()
        await hanging.wait()

    dead = asyncio.create_task(world.workers(PretendedCopier(hang), lease_s=3600).run_batch(1))
    await asyncio.wait_for(reached.wait(), DEADLINE_S)
    copier = PretendedCopier()
    other = world.workers(copier)
    assert await other.run_batch(1) == 0, "it is leased"
    hanging.set()
    await dead


async def test_leases_are_renewed_while_a_copy_takes_long(world: World) -> None:
    await world.completed("g")
    await world.level()
    started, go_on = asyncio.Event(), asyncio.Event()

    async def long(_order: CopyOrder) -> None:
        started.set()
        await go_on.wait()

    working = asyncio.create_task(world.workers(PretendedCopier(long), lease_s=0.6).run_batch(1))
    await asyncio.wait_for(started.wait(), DEADLINE_S)
    first = await world.backlog.next_due()
    assert first is not None

    async with asyncio.timeout(DEADLINE_S):
        while await world.backlog.next_due() == first:  # noqa: ASYNC110 - leases are not told of
            await asyncio.sleep(0.05)
    other = PretendedCopier()
    assert await world.workers(other).run_batch(1) == 0
    go_on.set()
    await working


async def test_a_failed_migration_is_visible_as_failed_and_made_again(world: World) -> None:
    async def away_at_first(order: CopyOrder) -> None:
        if len(copier.orders) == 1:
            raise CopyFailed(ReasonCode.BUCKET_UNAVAILABLE, f"refused {order.output_index}")

    copier = PretendedCopier(away_at_first)
    async with world.at_work(world.workers(copier)):
        await world.completed("g")
        await world.until_pending(0)
        await world.level()
    said = await world.said("g")
    assert [type(event) for event in said] == [
        MigrationAttemptFailed,
        MediaStored,
        MigrationCompleted,
    ]


async def test_one_lost_output_leaves_the_others_stored(world: World) -> None:
    async def second_is_refused(order: CopyOrder) -> None:
        if order.output_index == 1:
            raise CopyFailed(ReasonCode.MEDIA_TYPE_REFUSED, "text/html")

    copier = PretendedCopier(second_is_refused)
    await world.completed("g", outputs=3)
    await world.level()
    await world.workers(copier).run_batch(50)
    said = await world.said("g")
    assert sorted(type(event).__name__ for event in said) == [
        "MediaLost",
        "MediaStored",
        "MediaStored",
    ]
    (lost,) = [event for event in said if isinstance(event, MediaLost)]
    assert lost.index == 1


async def test_while_the_bucket_is_away_no_attempts_are_burned(world: World) -> None:
    away = True

    async def unless_away(_order: CopyOrder) -> None:
        if away:
            raise CopyFailed(ReasonCode.BUCKET_UNAVAILABLE, "refused")

    for number in range(30):
        await world.completed(f"g{number}", dies_in=(10 + number) * MINUTE)
    await world.level()
    copier = PretendedCopier(unless_away)
    workers = world.workers(copier, concurrency=4)
    assert await workers.run_batch(50) < 12
    assert workers.bucket_is_away
    away = False
    async with world.at_work(world.workers(copier, concurrency=4)):
        await world.until_pending(0)


async def test_when_the_bucket_is_back_what_waited_comes_before_its_time_and_a_little_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(world.log, clock=now, source="tests")
    for number in range(30):
        await world.completed(f"waits-{number}", dies_in=10 * MINUTE)
        in_an_hour = RecordAttemptFailed(
            0, 1, ReasonCode.BUCKET_UNAVAILABLE, "away", now() + 60 * MINUTE
        )
        await recorder.record(f"waits-{number}", in_an_hour)
    await world.completed("tried", dies_in=MINUTE, outputs=TRIPS_AFTER)
    await world.level()
    released: list[tuple[int, float]] = []
    release = world.backlog.release

    async def noted(
        reasons: Sequence[ReasonCode], *, failed_before: datetime, max_rows: int
    ) -> int:
        released.append((max_rows, asyncio.get_running_loop().time()))
        return await release(reasons, failed_before=failed_before, max_rows=max_rows)

    monkeypatch.setattr(world.backlog, "release", noted)

    async def away_at_first(_order: CopyOrder) -> None:
        if len(copier.orders) <= TRIPS_AFTER:
            raise CopyFailed(ReasonCode.BUCKET_UNAVAILABLE, "refused")

    copier = PretendedCopier(away_at_first)
    async with world.at_work(world.workers(copier, concurrency=4)):
        await world.until_pending(0)
    assert {rows for rows, _ in released} == {4}
    assert len(released) > 30 / 4
    pauses = [later - earlier for (_, earlier), (_, later) in pairwise(released)]
    assert min(pauses) >= RELEASE_EVERY_S / 2


async def test_stopping_gives_running_copies_their_time(world: World) -> None:
    started = asyncio.Event()

    async def a_little(_order: CopyOrder) -> None:
        started.set()
        await asyncio.sleep(0.05)

    await world.completed("g")
    await world.level()
    workers = world.workers(PretendedCopier(a_little))
    async with world.at_work(workers):
        await asyncio.wait_for(started.wait(), DEADLINE_S)
    assert [type(event) for event in await world.said("g")] == [MediaStored, MigrationCompleted]


async def test_what_does_not_end_in_time_is_given_back(world: World) -> None:
    started = asyncio.Event()

    async def for_ever(_order: CopyOrder) -> None:
        started.set()
        await asyncio.Event().wait()

    await world.completed("g")
    await world.level()
    workers = world.workers(PretendedCopier(for_ever), lease_s=3600, drain_s=0.05)
    async with world.at_work(workers):
        await asyncio.wait_for(started.wait(), DEADLINE_S)
    assert await world.said("g") == []
    assert await world.workers(PretendedCopier()).run_batch(1) == 1, "taken at once by another"
