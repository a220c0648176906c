"""A rebuild is killed at any moment: the old tables serve on, and the next rebuild goes on."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.generation_events import REQUESTED, STARTED, SUBMITTED, completed, media_stored, migrated
from tests.projecting import WAIT_S, World, same_as, until, world

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from shared.contracts.subjects import Subjects

ROOT = Path(__file__).parents[2]
KILLED, INTERRUPTED, FAILED = -9, -2, 1


@dataclass(frozen=True, slots=True)
class Ended:
    """How a rebuild in a process of its own ended.

    Attributes:
        parts: the processes that it had then.
    """

    began_at: int
    code: int
    parts: Sequence[int]
    errors: str


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


async def rebuilding(
    here: World, nats_url: str, what: str, number: int, *, processes: int = 1
) -> Ended:
    """A rebuild in a process of its own."""
    where = (nats_url, here.stream, here.subjects.root, here.dsn)
    arguments = (*where, str(processes), what, str(number))
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
    assert child.returncode in (KILLED, INTERRUPTED, FAILED, 0), errors.decode()
    assert "Traceback" not in errors.decode() or child.returncode == INTERRUPTED, errors.decode()
    said = {line.split()[0]: line.split()[1:] for line in output.decode().splitlines()}
    parts = [int(process) for process in said.get("parts", ())]
    return Ended(int(said["began"][0]), child.returncode, parts, errors.decode())


async def until_gone(processes: Sequence[int]) -> None:
    """Wait for the end of processes that nobody waits for any more."""

    def gone() -> bool:
        return not any(psutil.pid_exists(process) for process in processes)

    await until(gone)


async def test_killed_while_it_builds_it_goes_on_where_it_was(here: World, nats_url: str) -> None:
    async with here.projector().running():
        await here.reached(await more_history(here, "g1", "g2", "g3", "g4", "g5", "g6"))
        live = await here.rows()
        begun: list[int] = []
        for steps, how in ((2, "built"), (3, "interrupted"), (4, "built")):
            ended = await rebuilding(here, nats_url, how, steps)
            assert ended.code == (KILLED if how == "built" else INTERRUPTED)
            assert await here.rows() == live
            begun.append(ended.began_at)
        # The old ones serve on, and are projected on.
        await here.reached(await more_history(here, "g7"))
        ended = await rebuilding(here, nats_url, "never", 0)
        assert ended.code == 0
        begun.append(ended.began_at)
        assert begun[0] == 0
        assert begun == sorted(begun)
        assert begun[-1] > 0
        await here.reached(await more_history(here, "g8"))
        assert same_as(await here.folded(), await here.rows())


async def test_killed_with_several_processes_none_is_left_and_any_number_of_them_goes_on(
    here: World, nats_url: str
) -> None:
    async with here.projector().running():
        begun: list[int] = []
        for steps, how, code, processes in (
            (4, "part", FAILED, 2),
            (5, "built", KILLED, 3),
            (4, "interrupted", INTERRUPTED, 2),
        ):
            # One part may have come to the log's end before another is killed at its beginning.
            generations = [f"{how}{number}" for number in range(24)]
            await here.reached(await more_history(here, *generations))
            live = await here.rows()
            ended = await rebuilding(here, nats_url, how, steps, processes=processes)
            assert ended.code == code, ended.errors
            assert len(ended.parts) == processes
            if how == "part":
                assert f"process {processes} of {processes}" in ended.errors
                assert "ended by SIGKILL" in ended.errors
                assert len(ended.errors.splitlines()) == 1
            await until_gone(ended.parts)
            assert await here.rows() == live
            begun.append(ended.began_at)
        await here.reached(await more_history(here, "later"))
        ended = await rebuilding(here, nats_url, "never", 0)
        assert ended.code == 0, ended.errors
        begun.append(ended.began_at)
        assert begun[0] == 0
        assert begun == sorted(begun)
        assert begun[-1] > 0
        await here.reached(await more_history(here, "last"))
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
            ended = await rebuilding(here, nats_url, "switch", statement)
            assert await here.rows() == live
            # All was built before the first switch was tried, and stays so.
            assert ended.began_at == (0 if statement == 1 else position)
            if ended.code == 0:
                break
            killed += 1
        assert killed > 10
        await here.reached(await more_history(here, "g3"))
        assert same_as(await here.folded(), await here.rows())
