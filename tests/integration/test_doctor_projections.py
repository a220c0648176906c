"""What the doctor says of a read model, when it should."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from generation_svc.read_model.model import NAME, GenerationModel
from shared.event_log.jetstream_stream import StreamDeclaration, ensure_stream
from shared.messaging.jetstream import jetstream_of
from shared.projection.runner import ProjectorState
from shared.projection.tables import ensure
from shared.settings import LogSettings
from tests.doctoring import examined
from tests.generation_events import REQUESTED, STARTED
from tests.projecting import World, until_state, world
from velro.doctor.findings import Level
from velro.doctor.projections import projection_part
from velro.read_models import ReadModelPlace

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shared.contracts.subjects import Subjects
    from velro.doctor.findings import Finding


@pytest.fixture
async def here(
    nats_url: str, stream: str, subjects: Subjects, database: str
) -> AsyncGenerator[World]:
    async with world(nats_url, stream, subjects, database) as made:
        yield made


async def looked_at(
    here: World, nats_url: str, model: GenerationModel | None = None
) -> dict[str, Finding]:
    settings = LogSettings(nats_url=nats_url, stream=here.stream, subject_root=here.subjects.root)
    return await examined(projection_part(ReadModelPlace(settings, here.dsn, model or here.model)))


async def test_a_read_model_that_follows_is_green(here: World, nats_url: str) -> None:
    async with here.projector().running():
        await here.reached(await here.say("g1", REQUESTED, STARTED))
        found = await looked_at(here, nats_url)
    assert {name: finding.level for name, finding in found.items()} == {
        "version": Level.GREEN,
        "log": Level.GREEN,
        "lag": Level.GREEN,
        "parked": Level.GREEN,
    }


async def test_without_tables_it_says_which_service_is_to_be_started(
    here: World, nats_url: str
) -> None:
    found = await looked_at(here, nats_url)
    assert {finding.level for finding in found.values()} == {Level.RED}
    assert "start the service" in found["version"].advice


async def test_a_projector_that_was_stopped_is_red_though_nothing_waits(
    here: World, nats_url: str
) -> None:
    async with here.projector().running():
        await here.reached(await here.say("g1", REQUESTED))
    found = (await looked_at(here, nats_url))["lag"]
    assert found.level is Level.RED
    assert "no process projects" in found.found


async def test_a_projector_that_does_not_move_is_red(here: World, nats_url: str) -> None:
    blocker = await here.connection()
    async with here.projector().running():
        await here.reached(await here.say("g1", REQUESTED))
        transaction = blocker.transaction()
        await transaction.start()
        await blocker.execute("lock table generations in share row exclusive mode")
        await here.say("g1", STARTED)
        found = (await looked_at(here, nats_url))["lag"]
        await transaction.rollback()
    await blocker.close()
    assert found.level is Level.RED
    assert "has not moved" in found.found


async def test_parked_events_are_yellow_with_the_command_that_shows_them(
    here: World, nats_url: str
) -> None:
    async with here.projector().running():
        await here.say_bytes(here.subjects.generation("g1"), b"?")
        await here.reached(await here.say("g2", REQUESTED))
        found = (await looked_at(here, nats_url))["parked"]
    assert found.level is Level.YELLOW
    assert "velro parked list" in found.advice


async def test_another_log_is_red_with_what_to_do(here: World, nats_url: str) -> None:
    projector = here.projector()
    async with projector.running():
        await here.reached(await here.say("g1", REQUESTED, STARTED))
        await jetstream_of(here.nats).delete_stream(here.stream)
        gone = (await looked_at(here, nats_url))["lag"]
        await ensure_stream(here.nats, StreamDeclaration(name=here.stream, subjects=here.subjects))
        await until_state(projector, ProjectorState.REFUSING)
        shorter = (await looked_at(here, nats_url))["log"]
        await here.say("g2", REQUESTED, STARTED)
        other = (await looked_at(here, nats_url))["log"]
    assert (shorter.level, other.level) == (Level.RED, Level.RED)
    assert "ends at position 0" in shorter.found
    assert "another log" in other.found
    assert "restore" in shorter.advice
    assert gone.level is Level.RED
    assert "replay" not in gone.advice  # it would make empty tables


class NewerModel(GenerationModel):
    """The next version of the same read model."""

    @property
    def schema_sql(self) -> str:
        return super().schema_sql + "\n-- version 2 of the fold"


async def test_tables_of_another_version_are_red_with_the_command_that_makes_them_anew(
    here: World, nats_url: str
) -> None:
    connection = await here.connection()
    await ensure(connection, NAME, here.model)
    await connection.close()
    found = (await looked_at(here, nats_url, NewerModel()))["version"]
    assert found.level is Level.RED
    assert f"velro replay {NAME}" in found.advice
