"""What the doctor says of a service's database, when it should."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.doctoring import careless_postgres, examined
from velro.doctor.findings import Level
from velro.doctor.postgres import postgres_part
from velro.stack import ports

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path


async def test_a_database_as_it_should_be_is_green(database: str) -> None:
    found = await examined(postgres_part("storage", database, connections_a_process=10))
    assert {finding.level for finding in found.values()} == {Level.GREEN}
    assert set(found) == {"fsync", "synchronous_commit", "connections", "clock"}


@pytest.fixture
async def careless(tmp_path: Path) -> AsyncGenerator[str]:
    with careless_postgres(tmp_path) as dsn:
        yield dsn


async def test_a_database_that_does_not_sync_is_red(careless: str) -> None:
    found = await examined(postgres_part("storage", careless, connections_a_process=2))
    assert found["fsync"].level is Level.RED
    assert "velro replay" in found["fsync"].advice
    assert found["synchronous_commit"].level is Level.YELLOW


async def test_a_database_without_room_for_another_process_is_red(careless: str) -> None:
    roomy = await examined(postgres_part("storage", careless, connections_a_process=2))
    assert roomy["connections"].level is Level.GREEN
    tight = await examined(postgres_part("storage", careless, connections_a_process=12))
    assert tight["connections"].level is Level.RED
    assert "max_connections" in tight["connections"].advice
    async with AsyncExitStack() as stack:
        # Of 10 connections 3 are kept for superusers; the doctor itself is one.
        for connection in await asyncio.gather(*(asyncpg.connect(careless) for _ in range(5))):
            stack.push_async_callback(connection.close)
        used = await examined(postgres_part("storage", careless, connections_a_process=1))
    assert used["connections"].level is not Level.GREEN


async def test_a_database_that_is_away_is_one_red_finding(tmp_path: Path) -> None:
    port = ports.choose(dict.fromkeys(("nobody",)), tmp_path / "ports.json")["nobody"]
    dsn = f"postgresql://nobody:secret@127.0.0.1:{port}/nothing"
    found = await examined(postgres_part("storage", dsn, connections_a_process=1))
    assert [finding.level for finding in found.values()] == [Level.RED]
    [finding] = found.values()
    assert "VELRO_STORAGE_POSTGRES_DSN" in finding.advice
    assert "secret" not in finding.found
