"""Every repair, proven by a second look."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from shared.contracts.storage_events import ObjectLost
from shared.media.settings import MediaSettings
from shared.object_store.keys import object_key
from shared.postgres.connecting import connect
from tests.storage_media import MediaServer, media_server, picture
from tests.verifying import Three, said, three
from velro.verify.findings import Finding, Kind
from velro.verify.repairing import repairing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from shared.contracts.subjects import Subjects
    from velro.stack.seaweedfs import S3Address
    from velro.verify.repairing import Repair


@dataclass
class Mended:
    three: Three
    media: MediaServer
    settings: MediaSettings
    may_delete: bool = True
    asked: list[str] = field(default_factory=list[str])

    async def repaired(self, **wanted: object) -> list[Repair]:
        """Look, and mend what is found."""

        def may_go(orphan: Finding) -> bool:
            self.asked.append(orphan.key or "")
            return self.may_delete

        report = await self.three.verified(**wanted)
        async with (
            asyncio.timeout(30),
            repairing(self.three.places, self.settings, may_go) as mending,
        ):
            return [each async for each in mending.repair(report.findings)]


@pytest.fixture
async def places(
    nats_url: str, stream: str, subjects: Subjects, database: str, bucket: S3Address
) -> AsyncGenerator[Three]:
    async with three(
        nats_url=nats_url, stream=stream, subjects=subjects, database=database, bucket=bucket
    ) as places:
        yield places


@pytest.fixture
async def world(places: Three, tmp_path: Path) -> AsyncGenerator[Mended]:
    async with media_server() as media:
        places.url = f"http://{media.host}/{{id}}-{{index}}.png"
        settings = MediaSettings(
            media_http_hosts=(media.host,), spool_dir=tmp_path, media_max_bytes=1_000_000
        )
        yield Mended(places, media, settings)


def outcomes(repairs: list[Repair]) -> list[tuple[str, bool]]:
    return sorted((repair.finding.kind.value, repair.done) for repair in repairs)


async def test_rows_are_projected_again(world: Mended) -> None:
    three = world.three
    await three.stored("gone", outputs=2, at_once=False)
    await three.stored("wrong", at_once=False)
    await three.projected()
    before = await rows(three)
    await three.sql("generation", "delete from generations where id = 'gone'")
    await three.sql("storage", "delete from backlog where output_index = 1")
    await three.sql(
        "generation",
        """update generations set user_id = 'bob', input = '{}', attempts = 3
        where id = 'wrong'""",
    )
    await three.sql(
        "generation",
        "insert into generations (id, position, user_id, provider, model, status, attempts,"
        " created_at, updated_at, outputs, storage_state)"
        " values ('invented', 1, 'ann', 'fal', 'm', 'requested', 0, now(), now(), '[]', 'none')",
    )
    assert outcomes(await world.repaired()) == [
        ("row_differs", True),
        ("row_differs", True),
        ("row_missing", True),
        ("row_unknown", True),
    ]
    assert said(await three.verified()) == []
    assert await rows(three) == before


async def rows(three: Three) -> list[dict[str, object]]:
    connection = await connect(three.dsn, schema="generation", application_name="tests")
    try:
        found = await connection.fetch("select * from generations order by id")
    finally:
        await connection.close()
    return [dict(row) for row in found]


async def test_a_parked_generation_stands_in_no_other_ones_way(world: Mended) -> None:
    three = world.three
    await three.requested("parked")
    await three.nats.request(three.subjects.generation("parked"), b"not an event", timeout=5)
    await three.stored("wrong")
    await three.projected()
    await three.sql("generation", "update generations set attempts = 3")
    assert outcomes(await world.repaired()) == [
        ("parked", False),
        ("parked", False),
        ("row_differs", False),
        ("row_differs", True),
    ]
    assert said(await three.verified()) == [
        ("parked", "generation", "parked"),
        ("parked", "storage", "parked"),
        ("row_differs", "generation", "parked"),
    ]


async def test_a_missing_object_is_copied_again_from_its_link(world: Mended) -> None:
    three = world.three
    first, second = await three.stored("one", outputs=2)
    await three.projected()
    end = await three.log.last_position()
    await three.delete(second)
    assert outcomes(await world.repaired()) == [("object_missing", True)]
    assert said(await three.verified(deep=True)) == []
    assert world.media.order == ["one-1.png"]
    assert await three.keys() == {first.key, second.key}
    assert await three.log.last_position() == end


@pytest.mark.parametrize("damage", ["truncated", "altered", "another type"])
async def test_a_damaged_object_is_replaced_by_what_its_link_gives(
    world: Mended, damage: str
) -> None:
    three = world.three
    (stored,) = await three.stored("one")
    await three.projected()
    body = three.bodies["one", 0]
    match damage:
        case "truncated":
            await three.put(stored, body[:100])
        case "altered":
            await three.put(stored, body[:-1] + b"x")
        case _:
            await three.put(stored, body, ContentType="text/html")
    assert outcomes(await world.repaired(deep=True)) == [("object_differs", True)]
    assert said(await three.verified(deep=True)) == []


async def test_other_bytes_than_were_stored_are_not_taken_for_them(world: Mended) -> None:
    three = world.three
    (stored,) = await three.stored("one")
    await three.projected()
    await three.delete(stored)

    async def other(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=picture("another"), content_type="image/png")

    world.media.answers["one-0.png"] = other
    (repair,) = await world.repaired()
    assert repair.done
    assert "recorded as lost" in repair.said
    assert "other bytes" in repair.said
    assert await three.keys() == set()


@pytest.mark.parametrize("at_once", [True, False])
async def test_what_no_link_gives_again_is_recorded_as_lost_and_found_no_more(
    world: Mended, *, at_once: bool
) -> None:
    three = world.three
    first, second = await three.stored("one", outputs=2, at_once=at_once)
    await three.projected()
    await three.delete(second)
    world.media.answer("one-1.png", 404)
    assert outcomes(await world.repaired()) == [("object_missing", True)]
    last = (await three.log.load("storage", "one")).events[-1].envelope.data
    assert isinstance(last, ObjectLost)
    assert (last.index, last.object_key, last.loss) == (1, second.key, 1)
    await three.projected()
    assert said(await three.verified()) == []
    (row,) = await rows(three)
    assert (row["storage_state"], row["storage_retry_needed"]) == ("lost", True)
    assert await three.keys() == {first.key}
    assert outcomes(await world.repaired()) == []


async def test_a_source_that_is_only_away_loses_nothing(world: Mended) -> None:
    three = world.three
    (stored,) = await three.stored("one")
    await three.projected()
    await three.delete(stored)
    world.media.answer("one-0.png", 503)
    (repair,) = await world.repaired()
    assert not repair.done
    assert "try again later" in repair.said
    assert said(await three.verified()) == [("object_missing", "one", stored.key)]


async def test_an_orphan_goes_only_when_somebody_says_so(world: Mended) -> None:
    three = world.three
    (stored,) = await three.stored("one")
    await three.projected()
    orphan = stored.model_copy(update={"key": object_key("ann", "one", 7, "ab" * 32, "png")})
    await three.put(orphan, b"left behind")
    world.may_delete = False
    assert outcomes(await world.repaired()) == [("object_orphaned", False)]
    assert await three.keys() == {stored.key, orphan.key}
    world.may_delete = True
    assert outcomes(await world.repaired()) == [("object_orphaned", True)]
    assert world.asked == [orphan.key, orphan.key]
    assert await three.keys() == {stored.key}
    assert said(await three.verified()) == []


async def test_an_orphan_of_which_an_event_came_to_speak_is_left(world: Mended) -> None:
    three = world.three
    (stored,) = await three.stored("late", put=True)
    finding = Finding(
        Kind.OBJECT_ORPHANED, "", generation_id="late", bucket=stored.bucket, key=stored.key
    )
    async with repairing(three.places, world.settings, lambda _: True) as mending:
        (repair,) = [each async for each in mending.repair([finding])]
    assert repair.done
    assert await three.keys() == {stored.key}
