"""What was parked is applied later, or given up, beside a projector that goes on."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from generation_svc.read_model.model import NAME, GenerationModel
from shared.contracts.generation_events import SubmissionStarted
from shared.projection.errors import PoisonedEvent
from shared.projection.parked import NotParked, ParkingPlace
from shared.projection.rebuild import replay
from shared.projection.runner import Projector
from tests.archives import open_archived
from tests.generation_events import (
    CANCELLED,
    REQUESTED,
    STARTED,
    SUBMITTED,
    completed,
    storage_failed,
)
from tests.projecting import QUICK, World, same_as, until_answered, world

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from generation_svc.read_model.rows import GenerationRow
    from shared.contracts.envelope import Recorded
    from shared.contracts.subjects import Subjects
    from shared.event_log.port import EventLog
    from velro.stack.seaweedfs import S3Address

NUL = SUBMITTED.model_copy(update={"request_id": "\0"})  # Postgres takes none


@pytest.fixture
async def here(
    nats_url: str, stream: str, subjects: Subjects, database: str
) -> AsyncGenerator[World]:
    async with world(nats_url, stream, subjects, database) as made:
        yield made


class Defective(GenerationModel):
    """A fold with a defect that the next version mends."""

    def evolve(self, row: GenerationRow | None, recorded: Recorded) -> GenerationRow | None:
        if isinstance(recorded.envelope.data, SubmissionStarted):
            raise ZeroDivisionError("a defect")
        return super().evolve(row, recorded)


@asynccontextmanager
async def place(
    here: World, model: GenerationModel | None = None, *, log: EventLog | None = None
) -> AsyncGenerator[ParkingPlace]:
    connection = await here.connection(NAME)
    yield ParkingPlace(connection, model or here.model, log or here.log, here.decoding)
    await connection.close()


async def projected_with_the_defect(here: World, end: int) -> None:
    projector = Projector(here.dsn, here.log, Defective(), here.decoding, timing=QUICK)
    async with projector.running():
        await here.reached(end)


async def test_it_is_listed_by_the_event_that_began_it_with_how_many_follow(here: World) -> None:
    await here.say("g1", REQUESTED)
    await projected_with_the_defect(
        here, await here.say("g1", STARTED, SUBMITTED, completed("link"))
    )
    async with place(here) as parking:
        [first] = await parking.first_of_each(most=10)
        events = await parking.of("g1")
        assert [record.position for record in await parking.records(events)] == [2, 3, 4]
    assert (first.generation_id, first.position, first.following) == ("g1", 2, 2)
    assert first.event_type == STARTED.type
    assert "a defect" in first.reason


async def test_after_mending_a_retry_applies_all_of_it_while_more_arrives(here: World) -> None:
    await here.say("g1", REQUESTED)
    await projected_with_the_defect(here, await here.say("g1", STARTED, SUBMITTED))
    async with here.projector().running(), place(here) as parking:
        saying = asyncio.create_task(
            here.say("g1", completed("link", "link"), storage_failed(0, 1))
        )
        others = asyncio.create_task(here.say("g2", REQUESTED, STARTED, SUBMITTED))
        retried = await parking.retry("g1")
        assert retried.still is None
        assert retried.applied >= 2
        await here.reached(max(await saying, await others))
        if left := await parking.of("g1"):  # what arrived before the projector heard of it
            assert (await parking.retry("g1")).applied == len(left)
        # What arrives from now on is not parked any more.
        await here.reached(await here.say("g1", STARTED))
        assert await parking.of("g1") == []
        assert same_as(await here.folded(), await here.rows())
        with pytest.raises(NotParked, match="velro parked list"):
            await parking.retry("g1")


async def test_what_still_cannot_be_applied_says_why_and_stays_with_what_follows(
    here: World,
) -> None:
    await here.say("g1", REQUESTED)
    await projected_with_the_defect(here, await here.say("g1", STARTED, NUL, CANCELLED))
    async with place(here, Defective()) as parking:
        retried = await parking.retry("g1")
        assert retried.applied == 0
        assert retried.still is not None
        assert "a defect" in retried.still.reason
    async with place(here) as parking:
        # The defect is mended, and the event behind it turns out to be poison of its own.
        retried = await parking.retry("g1")
        assert retried.applied == 1
        assert retried.still is not None
        assert (retried.still.position, retried.still.event_type) == (3, NUL.type)
        assert [event.position for event in await parking.of("g1")] == [3, 4]
    assert (await here.rows())["g1"]["status"] == "submitting"


async def test_a_discarded_event_is_left_out_for_good_and_what_follows_is_applied(
    here: World,
) -> None:
    await here.say("g1", REQUESTED, STARTED, NUL)
    end = await here.say("g1", CANCELLED)
    async with here.projector().running(), place(here) as parking:
        await here.reached(end)

        async def parked() -> bool:
            return len(await parking.of("g1")) == 2

        await until_answered(parked)
        discarded = await parking.discard("g1", why="its request id is no text", by="ann")
        assert (discarded.applied, discarded.still) == (2, None)
        assert (await here.rows())["g1"]["status"] == "cancelled"
        [decision] = await parking.discarded()
        assert (decision.position, decision.discarded_by) == (3, "ann")
        assert decision.why == "its request id is no text"
        assert decision.reason

        # A rebuild comes to the same rows.
        before = await here.rows()
        await replay(here.dsn, here.log, here.model, here.decoding)
        assert await here.rows() == before

        # And stops again once the decision is taken back.
        assert await parking.undo_discard("g1") == 1
        with pytest.raises(PoisonedEvent, match="position 3 "):
            await replay(here.dsn, here.log, here.model, here.decoding)


async def test_two_who_retry_at_once_apply_each_event_once(here: World) -> None:
    await here.say("g1", REQUESTED)
    await projected_with_the_defect(
        here, await here.say("g1", STARTED, SUBMITTED, completed("link"))
    )
    async with place(here) as one, place(here) as other:
        results = await asyncio.gather(one.retry("g1"), other.retry("g1"), return_exceptions=True)
    applied = [result for result in results if not isinstance(result, BaseException)]
    assert [result.applied for result in applied] == [3]
    assert isinstance(next(r for r in results if isinstance(r, BaseException)), NotParked)
    assert same_as(await here.folded(), await here.rows())


async def test_what_left_the_stream_meanwhile_is_retried_from_the_archive(
    here: World, nats_url: str, subject_root: str, stream: str, bucket: S3Address
) -> None:
    await here.say("g1", REQUESTED, STARTED, CANCELLED)
    await projected_with_the_defect(here, await here.say("g2", REQUESTED))
    async with open_archived(
        nats_url=nats_url, subject_root=subject_root, stream=stream, bucket=bucket
    ) as archived:
        await archived.catch_up()
        await archived.trim()
        assert await archived.log.first_position() == 4
        async with place(here, log=archived.whole_log) as parking:
            records = await parking.records(await parking.of("g1"))
            assert [record.position for record in records] == [2, 3]
            retried = await parking.retry("g1")
    assert (retried.applied, retried.still) == (2, None)
    assert (await here.rows())["g1"]["status"] == "cancelled"
