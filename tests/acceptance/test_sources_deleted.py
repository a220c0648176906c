"""Where settings say so, the provider keeps no copy of what is stored; and only then."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from shared.contracts.generation_events import GenerationCompleted, SourcesDeleted
from velro.client import Api
from velro.local import Local

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.timeout(120)
async def test_once_all_is_stored_the_provider_is_asked_to_delete_its_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VELRO_NATS_URL", "VELRO_S3_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    local = Local(tmp_path, settings={"VELRO_DELETE_SOURCES": "true", "VELRO_STORE_BUDGET_S": "1"})
    await asyncio.to_thread(local.start)
    try:
        await asyncio.to_thread(local.stack.s3.stop)
        async with Api.at(local.api_url) as api, httpx.AsyncClient(trust_env=False) as web:
            requested = await api.request(
                user_id="ada",
                provider="sandbox",
                model="sandbox/painter",
                input_={"prompt": "a fox", "num_images": 2},
            )
            async with asyncio.timeout(60):
                *_, seen = [each async for each in api.watch(requested)]
                assert seen.status == "completed"
                events = await api.events(requested.id)
                links = links_of(events)
                assert len(links) == 2
                for link in links:
                    assert (await web.get(link)).status_code == 200, "not stored, so not deleted"
                await asyncio.to_thread(local.stack.s3.start)
                while SourcesDeleted.type not in {each["type"] for each in events}:
                    await asyncio.sleep(0.1)
                    events = await api.events(requested.id)
            for link in links:
                assert (await web.get(link)).status_code == 410
            seen = await api.get(requested.id)
            for url in seen.output_urls:
                assert (await web.get(url)).status_code == 200
    finally:
        await asyncio.to_thread(local.stop)


def links_of(events: list[dict[str, Any]]) -> list[str]:
    (completed,) = (each for each in events if each["type"] == GenerationCompleted.type)
    return [output["source_url"] for output in completed["data"]["outputs"]]
