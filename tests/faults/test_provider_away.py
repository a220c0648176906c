"""A provider that does not take what it is sent, or is not heard of after it did."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from generation_svc.adapters.nats_runner.dead_letters import DeadLetters
from shared.messaging.connection import connected
from shared.messaging.jetstream import jetstream_of
from velro.client import Api
from velro.local import Local

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from velro.client import Generation, Requested

QUICK = {
    "VELRO_RUN_FIRST_POLL_S": "0.1",
    "VELRO_RUN_LONGEST_POLL_S": "0.1",
    "VELRO_RUN_MAX_SUBMISSIONS": "2",
}


@pytest.fixture
def local(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator[Local]:
    for name in ("VELRO_NATS_URL", "VELRO_S3_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    with Local(tmp_path, settings=QUICK | request.param) as started:
        yield started


async def requested(api: Api, **faults: Any) -> Requested:  # noqa: ANN401 - the sandbox's words
    return await api.request(
        user_id="ada",
        provider="sandbox",
        model="sandbox/painter",
        input_={"prompt": "a fox", "sandbox": faults},
    )


async def finished(api: Api, wanted: Requested) -> Generation:
    async with asyncio.timeout(60):
        *_, seen = [each async for each in api.watch(wanted)]
    assert seen.finished
    return seen


@pytest.mark.timeout(150)
@pytest.mark.parametrize("local", [{}], indirect=True)
async def test_a_provider_that_is_busy_for_long_is_waited_for_and_paid_once(local: Local) -> None:
    async with Api.at(local.api_url) as api, httpx.AsyncClient(trust_env=False) as web:
        wanted = await requested(api, submit_status=429, submit_retry_after="1", submit_times=4)
        assert (await finished(api, wanted)).status == "completed"
        stats = (await web.get(f"{local.sandbox_url}/_sandbox/stats")).json()
    assert stats["posted"] == {wanted.id: 5}
    assert stats["taken"] == {wanted.id: 1}


@pytest.mark.timeout(150)
@pytest.mark.parametrize("local", [{"VELRO_RUN_MAX_S": "1"}], indirect=True)
async def test_what_a_provider_took_and_never_answered_for_is_failed_until_a_retry_finds_it(
    local: Local,
) -> None:
    # Enough to give up after a second, at ten polls a second; a retry soon gets through.
    unheard = {"poll": "drop", "poll_times": 12, "webhook": "withheld"}
    async with (
        Api.at(local.api_url) as api,
        connected(local.stack.addresses.nats_url, name="tests") as nats,
    ):
        wanted = await requested(api, **unheard)
        seen = await finished(api, wanted)
        assert seen.status == "failed"
        assert seen.error is not None
        assert seen.error.code == "provider_unreachable"
        letters = DeadLetters(jetstream_of(nats), "VELRO", "velro")
        async with asyncio.timeout(30):
            while not await letters.count():  # noqa: ASYNC110 - it is kept after the event is told
                await asyncio.sleep(0.1)
        assert (await letters.get(wanted.id)).reason == "ProviderStaysAway"
        await letters.retry(wanted.id)
        async with asyncio.timeout(60):
            while (await api.get(wanted.id)).status == "failed":  # noqa: ASYNC110 - no watch goes past an end
                await asyncio.sleep(0.1)
        seen = await api.get(wanted.id)
        assert seen.status == "completed"
        assert seen.error is None
        assert seen.output_urls
