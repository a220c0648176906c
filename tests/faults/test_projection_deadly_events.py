"""An event over which processes die is found, and parked like any other that cannot be applied."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from generation_svc.read_model.model import GenerationModel
from shared.projection.errors import PoisonedEvent
from shared.projection.rebuild import replay
from tests.faults.deadly_child import DEADLY, TIMING
from tests.generation_events import REQUESTED, STARTED, SUBMITTED
from tests.projecting import WAIT_S, World, same_as, until_answered, world

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncGenerator

    from generation_svc.read_model.rows import GenerationRow
    from shared.contracts.envelope import Recorded
    from shared.contracts.subjects import Subjects

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def here(
    nats_url: str, stream: str, subjects: Subjects, database: str
) -> AsyncGenerator[World]:
    async with world(nats_url, stream, subjects, database) as made:
        yield made


@asynccontextmanager
async def started(here: World, nats_url: str, how: str) -> AsyncGenerator[Process]:
    """A projector of its own; it ends with the test if it did not before."""
    where = (nats_url, here.stream, here.subjects.root, here.dsn, how)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.deadly_child", *where,
        cwd=ROOT, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def deaths_until_it_lives(here: World, nats_url: str, how: str, end: int) -> int:
    """Start it again each time that it dies, until the read model has reached the log's end."""
    deaths = 0
    async with asyncio.timeout(4 * WAIT_S):
        while True:
            async with started(here, nats_url, how) as child:
                dies = asyncio.create_task(child.wait())
                arrives = asyncio.create_task(here.watch.wait_for(end, timeout_s=WAIT_S))
                await asyncio.wait((dies, arrives), return_when=asyncio.FIRST_COMPLETED)
                arrives.cancel()
                if not dies.done():
                    child.terminate()
                    assert await dies == 0
                    return deaths
                deaths += 1


@pytest.mark.parametrize("how", ["exits", "is killed", "blocks"])
async def test_an_event_over_which_the_process_dies_is_parked_and_the_others_flow(
    here: World, nats_url: str, how: str
) -> None:
    await here.say("g0", REQUESTED, STARTED, SUBMITTED)
    poison = await here.say("g1", REQUESTED.model_copy(update={"model": DEADLY}))
    await here.say("g2", REQUESTED)
    await here.say("g1", STARTED)
    end = await here.say("g2", STARTED)

    # One death that tells nothing, and then as many over this one event as are allowed.
    assert await deaths_until_it_lives(here, nats_url, how, end) == 1 + TIMING.attempts

    rows = await here.rows()
    assert {key: row["status"] for key, row in rows.items()} == {
        "g0": "running",
        "g2": "submitting",
    }
    connection = await here.connection()
    parked = await connection.fetch("select * from parked_events order by position")
    await connection.close()
    assert [(event["position"], event["generation_id"]) for event in parked] == [
        (poison, "g1"),
        (poison + 2, "g1"),
    ]
    assert "2 processes in turn died" in parked[0]["reason"]
    # It was a clean end, so the next one does not go one by one again, and parks nothing more.
    async with here.projector().running():
        await here.reached(await here.say("g2", SUBMITTED))
    assert (await here.rows())["g2"]["status"] == "running"


class Untouched(GenerationModel):
    """Does not survive being given the deadly event, in a way that a test can see."""

    def evolve(self, row: GenerationRow | None, recorded: Recorded) -> GenerationRow | None:
        assert getattr(recorded.envelope.data, "model", None) != DEADLY
        return super().evolve(row, recorded)


async def test_a_rebuild_does_not_try_what_processes_died_over(here: World, nats_url: str) -> None:
    await here.say("g0", REQUESTED)
    end = await here.say("g1", REQUESTED.model_copy(update={"model": DEADLY}))
    await deaths_until_it_lives(here, nats_url, "exits", end)
    with pytest.raises(PoisonedEvent, match=f"position {end} .* processes in turn died"):
        await replay(here.dsn, here.log, Untouched(), here.decoding)


async def test_a_projector_killed_while_all_is_well_costs_no_event(
    here: World, nats_url: str
) -> None:
    await here.say("g0", REQUESTED)
    async with started(here, nats_url, "exits") as child:
        await here.reached(await here.say("g1", REQUESTED, STARTED))
        child.kill()
        await child.wait()
        end = await here.say("g1", SUBMITTED)
    async with here.projector().running():
        await here.reached(end)
    assert same_as(await here.folded(), await here.rows())
    connection = await here.connection()

    async def forgotten() -> bool:
        return not await connection.fetchval("select count(*) from velro_projection.attempts")

    await until_answered(forgotten)
    await connection.close()
