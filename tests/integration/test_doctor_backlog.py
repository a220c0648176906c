"""What the doctor says of the backlog, when it should."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from shared.contracts.envelope import Context, seal
from shared.contracts.reasons import ReasonCode
from shared.contracts.storage_events import MediaLost, MigrationAttemptFailed
from shared.event_log.port import NOTHING_YET
from tests.doctoring import examined
from tests.storage_world import World, now, open_world
from velro.doctor.backlog import backlog_part
from velro.doctor.findings import Level

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shared.contracts.storage_events import StorageEvent


@pytest.fixture
async def here(
    nats_url: str, subject_root: str, stream: str, database: str
) -> AsyncGenerator[World]:
    async with open_world(
        nats_url=nats_url, subject_root=subject_root, stream=stream, database=database
    ) as world:
        yield world


async def said(here: World, generation_id: str, event: StorageEvent) -> None:
    sealed = seal(event, generation_id=generation_id, at=now(), context=Context(source="tests"))
    await here.log.append("storage", generation_id, [sealed], expected=NOTHING_YET)


async def test_a_backlog_that_will_be_in_time_is_green(here: World, database: str) -> None:
    await here.completed("g")
    await here.level()
    found = await examined(backlog_part(database))
    assert {name: finding.level for name, finding in found.items()} == {
        "in time": Level.GREEN,
        "settings": Level.GREEN,
        "quarantine": Level.GREEN,
    }
    assert "1 outputs wait, none of them at risk" in found["in time"].found


async def test_links_that_die_soon_or_should_be_dead_are_yellow(here: World, database: str) -> None:
    await here.completed("soon", dies_in=timedelta(seconds=5))
    await here.completed("late", dies_in=timedelta(seconds=-5))
    await here.level()
    finding = (await examined(backlog_part(database)))["in time"]
    assert finding.level is Level.YELLOW
    assert "2 outputs wait" in finding.found
    assert "of 1 should be dead" in finding.found
    assert "storage-svc backlog" in finding.advice


async def test_what_settings_forbid_is_yellow(here: World, database: str) -> None:
    await here.completed("g")
    blocked = ReasonCode.BLOCKED_ADDRESS
    failed = MigrationAttemptFailed(
        index=0, attempt=1, reason=blocked, detail="no", retry_at=now() + timedelta(minutes=1)
    )
    await said(here, "g", failed)
    await here.level()
    finding = (await examined(backlog_part(database)))["settings"]
    assert (finding.level, finding.found[:15]) == (Level.YELLOW, "1 outputs wait ")
    assert "VELRO_MEDIA_HOSTS" in finding.advice


async def test_a_quarantine_that_waits_for_a_person_is_yellow(here: World, database: str) -> None:
    await here.completed("g")
    refused = ReasonCode.MEDIA_TYPE_REFUSED
    lost = MediaLost(index=0, attempt=1, reason=refused, detail="no", media_type="text/html")
    await said(here, "g", lost)
    await here.level()
    finding = (await examined(backlog_part(database)))["quarantine"]
    assert finding.level is Level.YELLOW
    assert "storage-svc quarantine list" in finding.advice
