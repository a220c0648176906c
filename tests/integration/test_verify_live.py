"""Verifying beside services at work: what goes on meanwhile is no difference."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from shared.postgres.connecting import connect
from shared.projection.batch import Decoding
from shared.projection.runner import Projector
from shared.projection.tables import ensure
from tests.projecting import QUICK
from tests.verifying import Three, said, three
from velro.verify.read_models import compared

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shared.contracts.subjects import Subjects
    from velro.stack.seaweedfs import S3Address

_ROUNDS = 6


@pytest.fixture
async def world(
    nats_url: str, stream: str, subjects: Subjects, database: str, bucket: S3Address
) -> AsyncGenerator[Three]:
    """Both read models are being projected."""
    async with (
        three(
            nats_url=nats_url, stream=stream, subjects=subjects, database=database, bucket=bucket
        ) as world,
        AsyncExitStack() as stack,
    ):
        for model in compared():
            connection = await connect(database, schema=model.name, application_name="tests")
            await ensure(connection, model.name, model.model)
            await connection.close()
            projector = Projector[Any](
                database, world.log, model.model, Decoding(subjects), timing=QUICK
            )
            await stack.enter_async_context(projector.running())
        yield world


async def test_traffic_meanwhile_gives_no_findings(world: Three) -> None:
    """Objects are put, said to be stored and projected all the while; no grace is given."""
    over = asyncio.Event()
    numbers = count()

    async def busy() -> None:
        while not over.is_set():
            number = next(numbers)
            await world.stored(f"g{number}", outputs=1 + number % 3, at_once=bool(number % 2))

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(busy())
        try:
            generations = 0
            for _ in range(_ROUNDS):
                report = await world.verified(deep=True)
                # An object is put before its event is written: with no grace it may be met there.
                found = [one for one in said(report) if one[0] != "object_orphaned"]
                assert found == []
                generations = report.generations
            report = await world.verified(grace_s=60.0)
            assert said(report) == []
        finally:
            over.set()
    assert generations > _ROUNDS
