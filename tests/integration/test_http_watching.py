from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fastapi.routing
import httpx
import pytest

from shared.serving import serving
from tests.generation_events import (
    CANCELLED,
    FAILED,
    REQUESTED,
    STARTED,
    SUBMITTED,
    completed,
    media_lost,
    media_stored,
    storage_failed,
)
from tests.http_world import Api, api
from tests.projecting import until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from shared.contracts.events import AnyEvent
    from shared.contracts.subjects import Subjects


@dataclass(frozen=True, slots=True)
class Told:
    """One server-sent event, or a comment."""

    event: str
    data: dict[str, Any]
    id: str | None


@pytest.fixture
async def velro(
    nats_url: str, stream: str, subjects: Subjects, database: str
) -> AsyncGenerator[Api]:
    async with api(nats_url, stream, subjects, database, max_watchers=2) as opened:
        yield opened


async def test_a_watcher_sees_a_generation_to_its_end(velro: Api) -> None:
    say = velro.world.say
    position = await say("g-1", REQUESTED)
    async with _served(velro) as client, _watching(client, "g-1", at_least=position) as told:
        seen = await anext(told)
        assert (seen.event, seen.data["status"]) == ("generation", "requested")
        assert seen.id == str(seen.data["position"]) == str(position)
        await say("g-1", STARTED)
        assert (await anext(told)).data["status"] == "submitting"
        await say("g-1", SUBMITTED)
        assert (await anext(told)).data["status"] == "running"
        await say("g-1", completed("link"))
        last = await anext(told)
        assert last.data["status"] == "completed"
        assert last.data["media_url"] == "https://media.example/0.png"
        assert (await anext(told)).data == {"reason": "finished"}
        assert await anext(told, None) is None
    await until(lambda: velro.service.changes.watchers == 0)


@pytest.mark.parametrize("end", [FAILED, CANCELLED], ids=["failed", "cancelled"])
async def test_what_has_ended_without_media_ends_every_watch(velro: Api, end: AnyEvent) -> None:
    position = await velro.world.say("g-1", REQUESTED, end)
    for until_what in ("finished", "stored"):
        stream = await velro.get("/g-1/watch", position, until=until_what)
        generation, last = _parsed(stream.text)
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert generation.data["status"] in {"failed", "cancelled"}
        assert (last.event, last.data) == ("end", {"reason": until_what})


async def test_a_watch_until_stored_goes_on_until_each_output_is_stored_or_lost(
    velro: Api,
) -> None:
    say = velro.world.say
    position = await say("g-1", REQUESTED, completed("link", "link"), storage_failed(0, 1))
    async with (
        _served(velro) as client,
        _watching(client, "g-1", at_least=position, until="stored") as told,
    ):
        assert (await anext(told)).data["storage_state"] == "temporary"
        await say("g-1", media_stored(1))
        assert (await anext(told)).data["storage_state"] == "partial"
        await say("g-1", media_lost(0))
        assert (await anext(told)).data["storage_state"] == "lost"
        assert (await anext(told)).data == {"reason": "stored"}


async def test_a_watcher_that_comes_back_is_told_only_what_is_new(velro: Api) -> None:
    position = await velro.world.say("g-1", REQUESTED)
    async with (
        _served(velro) as client,
        _watching(client, "g-1", at_least=position, last_event_id=position) as told,
    ):
        waiting = asyncio.ensure_future(anext(told))
        newer = await velro.world.say("g-1", STARTED)
        assert (await waiting).id == str(newer)


async def test_an_event_source_that_has_seen_the_end_is_told_not_to_come_back(velro: Api) -> None:
    position = await velro.world.say("g-1", REQUESTED, FAILED)
    path = f"/v1/generations/g-1/watch?at_least={position}&wait_s=20"
    seen = await velro.client.get(path, headers={"Last-Event-ID": str(position)})
    unseen = await velro.client.get(path, headers={"Last-Event-ID": str(position - 1)})
    assert (seen.status_code, seen.content) == (204, b"")
    assert [told.event for told in _parsed(unseen.text)] == ["generation", "end"]


async def test_a_watch_ends_at_its_deadline_and_says_so(velro: Api) -> None:
    position = await velro.world.say("g-1", REQUESTED)
    stream = await velro.get("/g-1/watch", position, timeout_s="0.05")
    assert [told.data.get("reason") for told in _parsed(stream.text)] == [None, "deadline"]


async def test_a_shutdown_ends_every_watch(velro: Api) -> None:
    position = await velro.world.say("g-1", REQUESTED)
    async with _served(velro) as client, _watching(client, "g-1", at_least=position) as told:
        await anext(told)
        velro.service.changes.close()
        assert (await anext(told)).data == {"reason": "shutting_down"}


async def test_watchers_over_the_bound_are_sent_away_and_one_that_hangs_up_makes_room(
    velro: Api,
) -> None:
    position = await velro.world.say("g-1", REQUESTED)
    async with _served(velro) as client:
        async with _watching(client, "g-1", at_least=position) as one:
            await anext(one)
            async with _watching(client, "g-1", at_least=position) as two:
                await anext(two)
                full = await client.get("/v1/generations/g-1/watch")
                assert full.status_code == 503
                assert full.json()["type"] == "/problems/too-many-waiting"
                assert "retry-after" in full.headers
        await until(lambda: velro.service.changes.watchers == 0)
        async with _watching(client, "g-1", at_least=position) as told:
            assert (await anext(told)).event == "generation"


async def test_an_idle_stream_is_kept_alive(velro: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastapi.routing, "_PING_INTERVAL", 0.05)
    position = await velro.world.say("g-1", REQUESTED)
    stream = await velro.get("/g-1/watch", position, timeout_s="0.5")
    assert stream.text.count(": ping\n\n") >= 2


async def test_watchers_of_what_does_not_change_cost_one_query_a_round(velro: Api) -> None:
    await velro.world.say("quiet", REQUESTED)
    position = await velro.world.say("busy", REQUESTED)
    async with (
        _served(velro) as client,
        _watching(client, "quiet", at_least=position) as quiet,
        _watching(client, "busy", at_least=position) as busy,
    ):
        await anext(quiet)
        await anext(busy)
        await velro.world.say("busy", STARTED)
        assert (await anext(busy)).data["status"] == "submitting"
        velro.queries.reads.clear()
        await velro.world.say("busy", SUBMITTED)
        assert (await anext(busy)).data["status"] == "running"
        assert set(velro.queries.reads) == {"busy"}
        assert velro.queries.rounds[-1] == ["busy", "quiet"]


@asynccontextmanager
async def _served(velro: Api) -> AsyncGenerator[httpx.AsyncClient]:
    """The same app behind a real server: httpx' own transport hands a stream over at its end."""
    async with (
        serving(velro.service.app, host="127.0.0.1", port=0) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
    ):
        yield client


@asynccontextmanager
async def _watching(
    client: httpx.AsyncClient,
    generation_id: str,
    *,
    at_least: int,
    last_event_id: int | None = None,
    until: str = "finished",
) -> AsyncGenerator[AsyncIterator[Told]]:
    headers = {} if last_event_id is None else {"Last-Event-ID": str(last_event_id)}
    query = {"at_least": at_least, "wait_s": 20, "until": until}
    path = f"/v1/generations/{generation_id}/watch"
    async with client.stream("GET", path, params=query, headers=headers) as stream:
        assert stream.status_code == 200

        async def told() -> AsyncIterator[Told]:
            block: list[str] = []
            async for line in stream.aiter_lines():
                if line:
                    block.append(line)
                elif block:
                    for each in _parsed("\n".join(block)):
                        yield each
                    block.clear()

        yield told()


def _parsed(text: str) -> list[Told]:
    found: list[Told] = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        if fields:
            found.append(Told(fields["event"], json.loads(fields["data"]), fields.get("id")))
    return found
