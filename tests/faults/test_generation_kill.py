"""The generation service killed with SIGKILL while a generation is at the provider."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from velro.client import Api
from velro.local import Local

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.timeout(120)
async def test_a_service_killed_while_it_polls_finishes_the_generation_with_one_paid_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VELRO_NATS_URL", "VELRO_S3_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    local = Local(tmp_path, settings={"VELRO_RUNNER_ACK_WAIT_S": "2"})
    await asyncio.to_thread(local.start)
    try:
        async with Api.at(local.api_url) as api, httpx.AsyncClient(trust_env=False) as web:
            requested = await api.request(
                user_id="ada",
                provider="sandbox",
                model="sandbox/painter",
                # Its callback never comes: only polling, by the next process, can finish it.
                input_={"prompt": "a fox", "sandbox": {"render_s": 2, "webhook": "withheld"}},
            )
            async for seen in api.watch(requested):
                if seen.status == "running":
                    break
            await asyncio.to_thread(local.generation.kill)
            assert not local.generation.running
            await asyncio.to_thread(local.generation.start)
            async with asyncio.timeout(60):
                seen = await api.get(requested.id)
                while not seen.finished:
                    async for update in api.watch(requested):
                        seen = update
            assert seen.status == "completed"
            assert seen.metadata.storage_successful
            stats = (await web.get(f"{local.sandbox_url}/_sandbox/stats")).json()
            assert stats["taken"] == {requested.id: 1}
    finally:
        await asyncio.to_thread(local.stop)
