"""A rebuild is killed at any moment: the old tables serve on, and the next rebuild goes on."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.generation_events import REQUESTED, STARTED, SUBMITTED, completed, media_stored, migrated
from tests.projecting import WAIT_S, World, same_as, world

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shared.contracts.subjects import Subjects

ROOT = Path(__file__).parents[2]
KILLED, INTERRUPTED = -9, -2


@pytest.fixture
async def here(
    nats_url: str, stream: str, subjects: Subjects, database: str
) -> AsyncGenerator[World]:
    async with world(nats_url, stream, subjects, database) as made:
        yield made


async def more_history(here: World, *generation_ids: str) -> int:
    for generation_id in generation_ids:
        await here.say(generation_id, REQUESTED, STARTED, SUBMITTED, completed("link", "link"))
    for generation_id in generation_ids:
        await here.say(generation_id, media_stored(1), media_stored(0), migrated(2))
    return await here.log.last_position()


async def rebuilding(here: World, nats_url: str, what: str, number: int) -> tuple[int, int]:
    """A rebuild in a process of its own: where it began, and how it ended."""
    arguments = (nats_url, here.stream, here.subjects.root, here.dsn, what, str(number))
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.rebuild_child", *arguments,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(WAIT_S):
            output, errors = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode in (KILLED, INTERRUPTED, 0), errors.decode()
    return int(output.split()[0]), child.returncode


async def test_killed_while_it_builds_it_goes_on_where_it_was(here: World, nats_url: str) -> None:
    async with here.projector().running():
        await here.reached(await more_history(here, "g1", "g2", "g3", "g4", "g5", "g6"))
        live = await here.rows()
        begun: list[int] = []
        for steps, how in ((2, "built"), (3, "interrupted"), (4, "built")):
            began_at, ended = await rebuilding(here, nats_url, how, steps)
            assert ended == (KILLED if how == "built" else INTERRUPTED)
            assert await here.rows() == live
            begun.append(began_at)
        # The old ones serve on, and are projected on.
        await here.reached(await more_history(here, "g7"))
        began_at, ended = await rebuilding(here, nats_url, "never", 0)
        assert ended == 0
        begun.append(began_at)
        assert begun[0] == 0
        assert begun == sorted(begun)
        assert begun[-1] > 0
        await here.reached(await more_history(here, "g8"))
        assert same_as(await here.folded(), await here.rows())


async def test_killed_before_any_statement_of_the_switch_one_of_the_two_serves_whole(
    here: World, nats_url: str
) -> None:
    async with here.projector().running():
        position = await more_history(here, "g1", "g2")
        await here.reached(position)
        live = await here.rows()
        killed = 0
        for statement in range(1, 60):
            began_at, ended = await rebuilding(here, nats_url, "switch", statement)
            assert await here.rows() == live
            # All was built before the first switch was tried, and stays so.
            assert began_at == (0 if statement == 1 else position)
            if ended == 0:
                break
            killed += 1
        assert killed > 10
        await here.reached(await more_history(here, "g3"))
        assert same_as(await here.folded(), await here.rows())
