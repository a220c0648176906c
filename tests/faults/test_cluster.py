"""NATS as three servers: the one that leads the log is killed under traffic."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from shared.archive.archive import Archive
from shared.archive.settings import ArchiveSettings
from shared.contracts.subjects import Subjects
from shared.event_log.jetstream import JetStreamLog
from shared.event_log.jetstream_api import ask
from shared.messaging.access import NatsAccess
from shared.messaging.connection import connected
from shared.object_store.s3 import s3_object_store
from tests.cluster import NAMES, NatsCluster
from tests.http_service import BODY
from tests.object_stores import settings_for
from velro.local import Local

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from nats.aio.client import Client

ASKED = {**BODY, "provider": "sandbox", "model": "sandbox/painter", "input": {"prompt": "a fox"}}


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncGenerator[NatsCluster]:
    made = NatsCluster(tmp_path / "cluster")
    try:
        await asyncio.to_thread(made.start)
        yield made
    finally:
        await asyncio.to_thread(made.kill)


async def info(nats: Client, stream: str) -> dict[str, Any]:
    return await ask(nats, f"$JS.API.STREAM.INFO.{stream}", None, timeout_s=5)


async def accepted(web: httpx.AsyncClient, key: str) -> str:
    """As a caller does: the same request until it is taken. Its id."""
    while True:
        try:
            answer = await web.post("/v1/generations", json=ASKED, headers={"Idempotency-Key": key})
        except httpx.TransportError:
            continue
        if answer.status_code in {200, 202}:  # 200: an answer before was lost
            return str(answer.json()["id"])
        assert answer.status_code == 503, answer.text
        await asyncio.sleep(0.1)


async def stored(web: httpx.AsyncClient, generation_id: str) -> None:
    while True:
        try:
            answer = await web.get(f"/v1/generations/{generation_id}")
        except httpx.TransportError:
            continue  # a connection that the service closed, having heard nothing on it for long
        if answer.is_success and answer.json()["storage_state"] == "stored":
            return
        await asyncio.sleep(0.1)


async def all_current(nats: Client) -> bool:
    replicas = (await info(nats, "VELRO"))["cluster"]["replicas"]
    return all(peer.get("current") for peer in replicas)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    while not await holds():  # noqa: ASYNC110 - other processes do it, and tell nobody
        await asyncio.sleep(0.1)


@pytest.mark.timeout(180)
async def test_the_leader_is_killed_and_nothing_is_lost_stops_or_is_paid_for_twice(
    cluster: NatsCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VELRO_S3_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("VELRO_NATS_URL", cluster.urls)
    settings = {"VELRO_LOG_REPLICAS": "3", "VELRO_ARCHIVE_SEGMENT_AGE_S": "1"}
    local = Local(tmp_path / "local", settings=settings)
    await asyncio.to_thread(local.start)
    try:
        async with (
            httpx.AsyncClient(base_url=local.api_url, timeout=20, trust_env=False) as web,
            connected(NatsAccess(tuple(cluster.urls.split(","))), name="tests") as nats,
            asyncio.timeout(120),
        ):
            for stream in ("VELRO", "VELRO_DEAD", "VELRO_RETRY"):
                assert (await info(nats, stream))["config"]["num_replicas"] == len(NAMES)
            leader = str((await info(nats, "VELRO"))["cluster"]["leader"])
            async with asyncio.TaskGroup() as requesting:
                asked = [
                    requesting.create_task(accepted(web, f"before-{number}")) for number in range(8)
                ]
                await asked[0]
                await asyncio.to_thread(cluster.servers[leader].kill)
                asked += [
                    requesting.create_task(accepted(web, f"after-{number}")) for number in range(8)
                ]
            ids = [each.result() for each in asked]
            await asyncio.gather(*(stored(web, each) for each in ids))
            taken = (await web.get(f"{local.sandbox_url}/_sandbox/stats")).json()["taken"]
            assert taken == dict.fromkeys(ids, 1)

            log = JetStreamLog(nats, Subjects())
            end = await log.last_position()
            async with aclosing(log.read(after=0, until=end)) as source:
                positions = [record.position async for batch in source for record in batch]
            assert positions == list(range(1, end + 1))
            async with s3_object_store(settings_for(local.stack.addresses.s3)) as bucket:
                archive = Archive(bucket, "VELRO", ArchiveSettings())

                async def all_archived() -> bool:
                    head = await archive.head()
                    return head is not None and head.last == end

                await until(all_archived)
            await asyncio.to_thread(cluster.servers[leader].start)
            await until(lambda: all_current(nats))
    finally:
        await asyncio.to_thread(local.stop)
