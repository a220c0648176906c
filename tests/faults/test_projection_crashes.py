"""A projector is killed at every statement, and every event still has its effect exactly once."""

from __future__ import annotations

import asyncio
import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shared.contracts.codec import Codec
from shared.contracts.envelope import Recorded
from shared.projection.tables import read_checkpoint
from tests.generation_events import (
    REQUESTED,
    STARTED,
    SUBMITTED,
    attempt_failed,
    completed,
    media_stored,
    migrated,
    storage_failed,
)
from tests.projecting import WAIT_S, World, expected, same_as, table, world

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from generation_svc.read_model.rows import GenerationRow
    from shared.contracts.subjects import Subjects

ROOT = Path(__file__).parents[2]
# One transaction: move the checkpoint, load the rows, save them.
TRANSACTION = ["BEGIN;", "with", "select", "insert", "COMMIT;"]
# After a death each event has a transaction of its own, and its attempt is counted before.
STATEMENTS = {
    "ended": [*TRANSACTION, *TRANSACTION, *TRANSACTION[:2]],
    "died": [*TRANSACTION, "insert", *TRANSACTION, "insert", *TRANSACTION[:2]],
}


@pytest.fixture
async def here(
    nats_url: str, stream: str, subjects: Subjects, database: str
) -> AsyncGenerator[World]:
    async with world(nats_url, stream, subjects, database) as made:
        yield made


async def more_history(here: World, numbers: count[int]) -> None:
    """Three transactions' worth: each generation spans several of them."""
    one, other = f"g{next(numbers)}", f"g{next(numbers)}"
    await here.say(one, REQUESTED, STARTED)
    await here.say(other, REQUESTED, STARTED, SUBMITTED, completed("link", "link"))
    await here.say(one, SUBMITTED, completed("bucket"))
    await here.say(other, storage_failed(0, 1), attempt_failed(0), media_stored(1))
    await here.say(other, media_stored(0), migrated(2))


async def killed_at(here: World, nats_url: str, statement: int, moment: str) -> str:
    """Project until that statement; the first word of it."""
    arguments = (nats_url, here.stream, here.subjects.root, here.dsn, str(statement), moment)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.projection_child", *arguments,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(WAIT_S):
            output, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode == -9, output.decode()
    return output.decode().splitlines()[-1]


async def assert_rows_are_those_of_the_checkpoint(here: World) -> int:
    """The table equals a fold in memory of exactly the events up to the checkpoint."""
    connection = await here.connection()
    async with connection.transaction(isolation="repeatable_read"):
        position = (await read_checkpoint(connection)).position
        rows = await table(connection)
    await connection.close()
    folded: dict[str, GenerationRow] = {}
    if position:
        async for records in here.log.read(after=0, until=position):
            for record in records:
                envelope = Codec().decode(record.data)
                row = here.model.evolve(
                    folded.get(envelope.subject), Recorded(record.position, envelope)
                )
                if row is not None:
                    folded[envelope.subject] = row
    assert same_as({key: expected(row) for key, row in folded.items()}, rows)
    return position


async def the_one_before(here: World, ended: str) -> None:
    """Let the projector before have ended in this way, over an event not tried before."""
    connection = await here.connection()
    await connection.execute("update velro_projection.sessions set ended = $1", ended == "ended")
    await connection.execute("delete from velro_projection.attempts")
    await connection.close()


@pytest.mark.parametrize("before", ["ended", "died"])
@pytest.mark.parametrize("moment", ["before", "sent"])
async def test_killed_at_any_statement_every_event_has_its_effect_exactly_once(
    here: World, nats_url: str, moment: str, before: str
) -> None:
    numbers = count()
    reached = 0
    async with here.projector().running():
        await here.reached(await here.say(f"g{next(numbers)}", REQUESTED))
    # The second transaction's statements are prepared already, and the third one has begun.
    for statement, first_word in enumerate(STATEMENTS[before], 1):
        await more_history(here, numbers)
        await the_one_before(here, before)
        assert await killed_at(here, nats_url, statement, moment) == first_word
        position = await assert_rows_are_those_of_the_checkpoint(here)
        assert position >= reached
        reached = position
    assert reached > 0
    async with here.projector().running():
        await here.reached(await here.log.last_position())
    assert same_as(await here.folded(), await here.rows())
