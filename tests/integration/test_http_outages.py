from __future__ import annotations

from typing import TYPE_CHECKING

from shared.contracts.generation_events import GenerationRequested
from shared.event_log.jetstream import JetStreamLog
from shared.event_log.jetstream_stream import StreamDeclaration, ensure_stream
from shared.messaging.connection import connected
from tests.generation_events import REQUESTED
from tests.http_service import BODY, HttpService
from tests.http_world import api
from tests.projecting import until_answered

if TYPE_CHECKING:
    import httpx

    from shared.contracts.subjects import Subjects
    from tests.servers.port import OwnNats, OwnPostgres


async def test_without_the_log_nothing_is_accepted_and_the_answer_says_so(
    own_nats: OwnNats, stream: str, subjects: Subjects
) -> None:
    async with connected(own_nats.url, name="test") as connection:
        await ensure_stream(connection, StreamDeclaration(name=stream, subjects=subjects))
        log = JetStreamLog(connection, subjects, stream=stream, timeout_s=1.0)
        service = HttpService(log=log)
        async with service.client() as client:
            own_nats.server.stop()
            refused = [
                await _post(client, "1"),
                await client.post("/v1/generations/g-1/cancel"),
                await client.get("/v1/generations/g-1/events"),
            ]
            own_nats.server.start()

            async def accepted() -> bool:
                return (await _post(client, "2")).status_code in {200, 202}

            await until_answered(accepted)
        for answer in refused:
            assert answer.status_code == 503, answer.text
            assert answer.json()["type"] == "/problems/log-unavailable"
            assert int(answer.headers["retry-after"]) > 0
        assert await log.last_position() == 1
        async for (record,) in log.read(after=0, until=1):
            assert GenerationRequested.type.encode() in record.data


async def test_while_postgres_is_away_requests_are_accepted_and_read_afterwards(
    nats_url: str, stream: str, subjects: Subjects, own_postgres: OwnPostgres
) -> None:
    async with api(nats_url, stream, subjects, own_postgres.dsn) as velro:
        await velro.world.reached(await velro.world.say("g-1", REQUESTED))
        own_postgres.server.stop()
        unread = await velro.client.get("/v1/generations/g-1")
        taken = await _post(velro.client, "1")
        own_postgres.server.start()
        accepted = taken.json()
        found = await velro.get(f"/{accepted['id']}", accepted["position"])
    assert unread.status_code == 503
    assert unread.json()["type"] == "/problems/read-model-unavailable"
    assert taken.status_code == 202
    assert found.status_code == 200


async def _post(client: httpx.AsyncClient, key: str) -> httpx.Response:
    return await client.post("/v1/generations", json=BODY, headers={"Idempotency-Key": key})
