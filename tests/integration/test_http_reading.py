from __future__ import annotations

import asyncio
import base64
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from shared.contracts.generation_events import GenerationRequested
from tests.generation_events import (
    CANCELLED,
    DIES_AT,
    FAILED,
    REQUESTED,
    STARTED,
    SUBMITTED,
    attempt_failed,
    completed,
    media_lost,
    media_stored,
    migrated,
    storage_failed,
)
from tests.http_service import BODY
from tests.http_world import Api, api

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shared.contracts.events import AnyEvent
    from shared.contracts.subjects import Subjects

FLAGS_UP = {
    "storage_retry_needed": True,
    "fal_urls_temporary": True,
    "requires_background_migration": True,
    "storage_successful": False,
    "migration_completed_at": None,
    "total_migrated_size": None,
    "migration_file_count": None,
}


@pytest.fixture
async def velro(
    nats_url: str, stream: str, subjects: Subjects, database: str
) -> AsyncGenerator[Api]:
    async with api(nats_url, stream, subjects, database) as opened:
        yield opened


async def test_what_was_accepted_is_there_at_the_position_that_was_answered(velro: Api) -> None:
    accepted = (await velro.client.post("/v1/generations", json=BODY)).json()
    answer = await velro.client.get(accepted["links"]["self"])
    assert answer.status_code == 200
    generation = answer.json()
    assert generation["status"] == "requested"
    assert generation["position"] == accepted["position"]
    assert {name: generation[name] for name in ("user_id", "provider", "model", "input")} == {
        name: BODY[name] for name in ("user_id", "provider", "model", "input")
    }
    assert generation["metadata"]["album"] == "lighthouses"
    assert (generation["outputs"], generation["output_urls"]) == ([], [])
    assert generation["media_url"] is None
    assert generation["error"] is None


async def test_twenty_identical_requests_at_once_are_one_generation_in_a_real_log(
    velro: Api,
) -> None:
    answers = await asyncio.gather(
        *(
            velro.client.post("/v1/generations", json=BODY, headers={"Idempotency-Key": "once"})
            for _ in range(20)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert await velro.world.log.last_position() == 1


async def test_a_completed_generation_has_urls_though_nothing_is_stored(velro: Api) -> None:
    position = await velro.world.say(
        "g-1", REQUESTED, STARTED, SUBMITTED, completed("link", "link"), storage_failed(0, 1)
    )
    generation = await velro.generation("g-1", position)
    links = ["https://media.example/0.png", "https://media.example/1.png"]
    assert generation["status"] == "completed"
    assert generation["storage_state"] == "temporary"
    assert generation["output_urls"] == links
    assert generation["media_url"] == links[0]
    assert generation["metadata"] == {"p": 1, **FLAGS_UP}
    first = generation["outputs"][0]
    assert (first["stored"], first["expires_at"]) == (False, "2026-03-01T13:00:00Z")
    assert (first["lost_reason"], first["failure_reason"]) == (None, "bucket_unavailable")


async def test_each_output_turns_permanent_by_itself_and_the_flags_fall_with_the_last(
    velro: Api,
) -> None:
    position = await velro.world.say(
        "g-1", REQUESTED, completed("link", "link"), storage_failed(0, 1), media_stored(1)
    )
    partly = await velro.generation("g-1", position)
    bucket = "https://media.example/media/ann/g"
    assert partly["storage_state"] == "partial"
    assert partly["output_urls"] == ["https://media.example/0.png", f"{bucket}/1.png"]
    assert partly["metadata"] == {"p": 1, **FLAGS_UP}
    assert partly["outputs"][1] == {
        "index": 1,
        "url": f"{bucket}/1.png",
        "expires_at": None,
        "stored": True,
        "lost": False,
        "media_type": "image/png",
        "width": None,
        "height": None,
        "size_bytes": 11,
        "sha256": "ab" * 32,
        "lost_reason": None,
        "failure_reason": None,
    }

    position = await velro.world.say("g-1", media_stored(0), migrated(2))
    whole = await velro.generation("g-1", position)
    assert whole["output_urls"] == [f"{bucket}/0.png", f"{bucket}/1.png"]
    flags = whole["metadata"]
    assert not flags["storage_retry_needed"]
    assert not flags["fal_urls_temporary"]
    assert not flags["requires_background_migration"]
    assert flags["storage_successful"]
    assert (flags["migration_file_count"], flags["total_migrated_size"]) == (2, 21)
    assert flags["migration_completed_at"]


async def test_media_that_another_service_made_has_no_input_and_all_the_rest(velro: Api) -> None:
    position = await velro.world.say("g-1", completed("bucket"))
    generation = await velro.generation("g-1", position)
    assert generation["input"] is None
    assert generation["metadata"]["storage_successful"]
    assert generation["media_url"] == "https://media.example/media/ann/g/0.png"


async def test_a_failed_generation_says_why(velro: Api) -> None:
    position = await velro.world.say("g-1", REQUESTED, STARTED, FAILED)
    generation = await velro.generation("g-1", position)
    assert generation["status"] == "failed"
    assert generation["error"] == {
        "code": "refused",
        "detail": "no",
        "retryable": False,
        "billed": True,
        "given_up": False,
    }


@pytest.mark.parametrize("end", [completed("link"), FAILED], ids=["completed", "failed"])
async def test_what_is_finished_cannot_be_cancelled(velro: Api, end: AnyEvent) -> None:
    await velro.world.say("g-1", REQUESTED, end)
    answer = await velro.client.post("/v1/generations/g-1/cancel")
    assert answer.status_code == 409
    assert answer.json()["type"] == "/problems/already-finished"


async def test_a_position_that_does_not_come_is_a_504_in_time(velro: Api) -> None:
    await velro.world.reached(await velro.world.say("g-1", REQUESTED))
    answer = await velro.client.get(
        "/v1/generations/g-1", params={"at_least": 1_000_000, "wait_s": 0.05}
    )
    assert answer.status_code == 504
    assert answer.json()["type"] == "/problems/read-model-behind"


async def test_an_unknown_generation_is_a_404(velro: Api) -> None:
    await velro.world.reached(await velro.world.say("g-1", REQUESTED))
    answers = [
        await velro.client.get(f"/v1/generations/nobodys{path}")
        for path in ("", "/outputs/0", "/watch", "/events")
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert {answer.json()["type"] for answer in answers} == {"/problems/generation-not-found"}


async def test_pages_hold_every_generation_once_the_newest_first(velro: Api) -> None:
    position = 0
    for number in range(7):
        position = await velro.world.say(f"g-{number}", REQUESTED)
    seen: list[str] = []
    cursor: str | None = None
    while True:
        query = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await velro.get("", position, **query)).json()
        seen += [generation["id"] for generation in page["generations"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [f"g-{number}" for number in reversed(range(7))]


async def test_a_list_is_narrowed_by_user_status_and_storage(velro: Api) -> None:
    say = velro.world.say
    bobs = GenerationRequested(user_id="bob", provider="fal", model="painter", input={})
    await say("asked", REQUESTED)
    await say("bobs", bobs)
    await say("cancelled", REQUESTED, CANCELLED)
    await say("kept", REQUESTED, completed("bucket"))
    position = await say("fresh", REQUESTED, completed("link"))

    async def ids(**query: str) -> list[str]:
        answer = await velro.get("", position, **query)
        return [generation["id"] for generation in answer.json()["generations"]]

    assert await ids() == ["fresh", "kept", "cancelled", "bobs", "asked"]
    assert await ids(user_id="bob") == ["bobs"]
    assert await ids(status="cancelled") == ["cancelled"]
    assert await ids(storage_state="temporary") == ["fresh"]
    assert await ids(user_id="ann", status="completed", storage_state="stored") == ["kept"]
    assert await ids(user_id="nobody") == []


async def test_a_cursor_that_was_never_given_out_is_refused(velro: Api) -> None:
    await velro.world.reached(await velro.world.say("g-1", REQUESTED))
    before_time = base64.urlsafe_b64encode(b"0001-01-01T00:00:00+23:59 g-1").decode()
    for cursor in ("x", "%00", "é", "MjAyNg", "a" * 200, before_time):
        answer = await velro.client.get("/v1/generations", params={"cursor": cursor})
        assert answer.status_code == 422, (cursor, answer.text)
        (error,) = answer.json()["errors"]
        assert (error["in"], error["name"]) == ("query", "cursor")


async def test_an_outputs_address_leads_to_where_the_bytes_are_now(velro: Api) -> None:
    living = completed("link", "link")
    position = await velro.world.say("g-1", REQUESTED, living, media_stored(1))
    at_link = await velro.get("/g-1/outputs/0", position)
    in_bucket = await velro.get("/g-1/outputs/1", position)
    none = await velro.get("/g-1/outputs/2", position)
    assert (at_link.status_code, in_bucket.status_code, none.status_code) == (307, 307, 404)
    assert at_link.headers["location"] == "https://media.example/0.png"
    assert in_bucket.headers["location"] == "https://media.example/media/ann/g/1.png"
    assert at_link.headers["cache-control"] == "no-store"
    assert none.json()["type"] == "/problems/output-not-found"


async def test_a_lost_output_is_to_be_had_while_its_link_lives_and_gone_afterwards(
    velro: Api,
) -> None:
    position = await velro.world.say(
        "g-1", REQUESTED, completed("link", "link"), attempt_failed(0), media_lost(0)
    )
    assert (await velro.get("/g-1/outputs/0", position)).status_code == 307
    generation = await velro.generation("g-1", position)
    assert [output["lost"] for output in generation["outputs"]] == [True, False]
    assert generation["outputs"][0]["lost_reason"] == "source_expired"
    assert len(generation["output_urls"]) == 2

    velro.clock.at = DIES_AT
    gone = await velro.get("/g-1/outputs/0", position)
    assert gone.status_code == 410
    assert gone.json()["type"] == "/problems/output-gone"
    assert "source_expired" in gone.json()["detail"]
    assert (await velro.get("/g-1/outputs/1", position)).status_code == 307
    velro.clock.at = DIES_AT + timedelta(minutes=1)
    assert (await velro.get("/g-1/outputs/1", position)).status_code == 410
