"""A link dies while the bucket is away, and the provider gives a new one for the same request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from shared.contracts.generation_events import LinksRenewed
from shared.contracts.storage_events import MediaLost, MediaStored, RefetchRequested
from velro.client import Api
from velro.local import Local

if TYPE_CHECKING:
    from pathlib import Path


async def said(api: Api, generation_id: str, *types: str) -> list[dict[str, Any]]:
    return [each for each in await api.events(generation_id) if each["type"] in types]


@pytest.mark.timeout(150)
async def test_an_output_whose_link_died_in_an_outage_is_stored_from_a_new_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VELRO_NATS_URL", "VELRO_S3_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    local = Local(tmp_path, settings={"VELRO_STORE_BUDGET_S": "1"})
    await asyncio.to_thread(local.start)
    try:
        await asyncio.to_thread(local.stack.s3.stop)
        async with Api.at(local.api_url) as api, httpx.AsyncClient(trust_env=False) as web:
            requested = await api.request(
                user_id="ada",
                provider="sandbox",
                model="sandbox/painter",
                input_={
                    "prompt": "a fox",
                    "sandbox": {"link_lifetime_s": 3, "renews_links": 600},
                },
            )
            async with asyncio.timeout(60):
                *_, seen = [each async for each in api.watch(requested, until="finished")]
                assert seen.status == "completed"
                (first,) = seen.outputs
                assert first.url is not None
                # Nothing tells of a link's death, nor of what another process finds out.
                while (await web.get(first.url)).is_success:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.2)
                await asyncio.to_thread(local.stack.s3.start)
                while not await said(api, requested.id, MediaStored.type, MediaLost.type):  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.2)
            kinds = (RefetchRequested.type, LinksRenewed.type, MediaStored.type, MediaLost.type)
            events = [each["type"] for each in await said(api, requested.id, *kinds)]
            assert events == [RefetchRequested.type, LinksRenewed.type, MediaStored.type]
            *_, seen = [each async for each in api.watch(requested, until="stored")]
            (output,) = seen.outputs
            assert output.stored
            assert output.url != first.url
    finally:
        await asyncio.to_thread(local.stop)
