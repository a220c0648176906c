"""The whole log is lost beneath running services, and comes back from the bucket."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from generation_svc.adapters.nats_runner.runner import DURABLE
from shared.event_log.jetstream_api import ask
from shared.event_log.jetstream_stream import StreamDeclaration, ensure_stream, stream_state
from shared.messaging.connection import connected
from shared.messaging.jetstream import jetstream_of
from tests.acceptance.commands import Command
from tests.http_service import BODY
from tests.projecting import until_answered
from velro.client import Api, Generation
from velro.local import Local

if TYPE_CHECKING:
    from pathlib import Path


async def painted(api: Api) -> Generation:
    requested = await api.request(
        user_id="ada", provider="sandbox", model="sandbox/painter", input_={"prompt": "a fox"}
    )
    seen = await api.get(requested.id, at_least=requested.position)
    async with asyncio.timeout(60):
        while not seen.finished:
            async for update in api.watch(requested):
                seen = update
    return seen


@pytest.mark.timeout(240)
async def test_a_log_that_was_lost_is_neither_followed_nor_added_to_until_it_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VELRO_NATS_URL", "VELRO_S3_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    local = Local(tmp_path / "local")
    command = Command(tmp_path)
    ready = [f"{local.api_url}/readyz"]
    ready += [f"http://127.0.0.1:{local.environment['VELRO_STORAGE_PORT']}/readyz"]
    await asyncio.to_thread(local.start)
    try:
        async with (
            Api.at(local.api_url) as api,
            httpx.AsyncClient(trust_env=False) as web,
            connected(local.stack.addresses.nats_url, name="tests") as nats,
        ):

            async def are_all(status: int, saying: str) -> bool:
                answers = [await web.get(url) for url in ready]
                return all(a.status_code == status and saying in a.text for a in answers)

            before = await painted(api)
            archived = await asyncio.to_thread(
                command.run,
                "archive",
                "--once",
                program="storage-svc",
                environment=local.environment,
            )
            assert archived.returncode == 0, archived.stderr
            end = (await stream_state(nats, "VELRO", timeout_s=5)).last

            await ask(nats, "$JS.API.STREAM.DELETE.VELRO", None, timeout_s=5)
            await ensure_stream(nats, StreamDeclaration())
            await until_answered(lambda: are_all(503, "ends at position 0"))
            answer = await web.post(f"{local.api_url}/v1/generations", json=BODY)
            assert answer.status_code == 503
            assert "until a person has looked" in answer.text
            # A service that starts now knows it from the first request on.
            await asyncio.to_thread(local.generation.kill)
            await ask(nats, "$JS.API.STREAM.DELETE.VELRO", None, timeout_s=5)
            await ensure_stream(nats, StreamDeclaration())
            await asyncio.to_thread(local.generation.spawn)
            await until_answered(lambda: answers_503(web, f"{local.api_url}/v1/generations"))
            assert (await stream_state(nats, "VELRO", timeout_s=5)).last == 0

            restored = await asyncio.to_thread(command.run, "restore")
            assert restored.returncode == 0, restored.stderr
            assert (await stream_state(nats, "VELRO", timeout_s=5)).last == end
            await until_answered(lambda: are_all(200, ""))
            found = await api.get(before.id)
            assert (found.status, found.position) == (before.status, before.position)
            # The requests that were done before are not taken up again, one by one.
            runner = await jetstream_of(nats).consumer_info("VELRO", DURABLE)
            assert runner.config.opt_start_seq == end + 1
            after = await painted(api)
            assert after.status == "completed"
            stats = (await web.get(f"{local.sandbox_url}/_sandbox/stats")).json()
            assert stats["taken"] == {before.id: 1, after.id: 1}
    finally:
        await asyncio.to_thread(local.stop)


async def answers_503(web: httpx.AsyncClient, url: str) -> bool:
    try:
        answer = await web.post(url, json=BODY)
    except httpx.TransportError:
        return False  # it has not begun to listen
    assert answer.status_code == 503, answer.text
    return True
