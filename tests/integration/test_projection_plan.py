"""A plan says what a rebuild will do, from a sample, and leaves nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.event_log.jetstream_stream import StreamDeclaration, ensure_stream
from shared.messaging.jetstream import jetstream_of
from shared.projection.errors import PoisonedEvent
from shared.projection.rebuild import Progress, replay
from shared.projection.rebuild_plan import Plan, plan
from shared.projection.rebuild_schemas import Serving
from tests.generation_events import REQUESTED, STARTED, SUBMITTED, completed
from tests.projecting import World, world

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shared.contracts.subjects import Subjects


@pytest.fixture
async def here(
    nats_url: str, stream: str, subjects: Subjects, database: str
) -> AsyncGenerator[World]:
    async with world(nats_url, stream, subjects, database) as made:
        yield made


async def history(here: World, *generation_ids: str) -> int:
    position = 0
    for generation_id in generation_ids:
        position = await here.say(generation_id, REQUESTED, STARTED, SUBMITTED, completed("link"))
    return position


async def planned(here: World) -> Plan:
    return await plan(here.dsn, here.log, here.model, here.decoding)


async def test_it_counts_what_will_be_read_and_written(here: World) -> None:
    end = await history(here, "g1", "g2", "g3")
    made = await planned(here)
    assert (made.events, made.ends_at, made.sampled, made.aggregates) == (end, end, end, 3)
    assert [(table.name, table.rows) for table in made.tables] == [("generations", 3)]
    assert made.tables[0].bytes > 0
    assert made.predicted_s > 0
    assert made.serving is None
    assert await here.schemas() == set()


async def test_a_sample_stands_for_the_whole_log(
    here: World, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.projection.rebuild_plan._SAMPLE_EVENTS", 8)
    end = await history(here, *(f"g{number}" for number in range(6)))
    async with here.projector().running():
        await here.reached(end)
    async with world(nats_url, here.stream, here.subjects, here.dsn, batch=4) as small:
        made = await planned(small)
    assert (made.sampled, made.events, made.aggregates) == (8, 24, 6)
    assert made.tables[0].rows == 6
    assert made.serving == Serving(end, same_version=True)


async def interrupted(here: World) -> None:
    """A rebuild that came to the log's end, and no further."""

    class CutOff(Exception):
        pass

    def cut_off(progress: Progress) -> None:
        if progress.done:
            raise CutOff

    with pytest.raises(CutOff):
        await replay(here.dsn, here.log, here.model, here.decoding, on_progress=cut_off)


async def test_an_interrupted_rebuild_is_planned_from_where_it_came_to(here: World) -> None:
    end = await history(here, "g1", "g2")
    await interrupted(here)
    await history(here, "g3")
    made = await planned(here)
    assert (made.begins_at, made.events, made.dropped) == (end, 4, None)


async def test_why_an_interrupted_rebuild_is_dropped_is_said(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = await history(here, "g1")
    await interrupted(here)

    def newer(_: object) -> str:
        return "newer"

    monkeypatch.setattr("shared.projection.rebuild_schemas.program_fingerprint", newer)
    made = await planned(here)
    assert (made.begins_at, made.events) == (0, end)
    assert made.dropped == "another version of the program began it"


async def test_what_was_made_from_another_log_is_neither_gone_on_with_nor_compared(
    here: World,
) -> None:
    end = await history(here, "g1", "g2")
    async with here.projector().running():
        await here.reached(end)
    await interrupted(here)
    await jetstream_of(here.nats).delete_stream(here.stream)
    await ensure_stream(here.nats, StreamDeclaration(name=here.stream, subjects=here.subjects))
    await history(here, "g3")
    made = await planned(here)
    assert (made.begins_at, made.serving) == (0, None)
    assert made.dropped is not None
    assert made.dropped.startswith("it read another log: ")
    assert made.other_log is not None
    assert made.dropped.endswith(made.other_log)


async def test_an_empty_log_is_nothing_to_do(here: World) -> None:
    made = await planned(here)
    assert (made.events, made.predicted_s, made.tables) == (0, 0, ())


async def test_what_cannot_be_applied_is_said_before(here: World) -> None:
    await history(here, "g1")
    position = await here.say_bytes(here.subjects.storage("g1"), b"?")
    with pytest.raises(PoisonedEvent, match=f"position {position}"):
        await planned(here)
    assert await here.schemas() == set()
