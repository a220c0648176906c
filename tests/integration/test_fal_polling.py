from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr

from generation_svc.adapters.providers.fal import FalProvider, sandbox_provider, sandbox_settings
from generation_svc.application.provider import (
    Failed,
    Pending,
    ProviderRequest,
    ProviderUnavailable,
    ResultGone,
    Submission,
    Succeeded,
)
from velro.sandbox.server import RunningSandbox, running_sandbox
from velro.sandbox.settings import SandboxSettings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncGenerator[RunningSandbox, None]:
    async with running_sandbox(
        SandboxSettings(data=tmp_path, concurrency=1, max_finished_requests=2)
    ) as running:
        yield running


@pytest.fixture
async def provider(sandbox: RunningSandbox) -> AsyncGenerator[FalProvider, None]:
    settings = sandbox_settings(sandbox.url, SecretStr("sandbox-key"), object_lifetime_s=600)
    provider = sandbox_provider(settings.model_copy(update={"poll_deadline_s": 1.0}))
    yield provider
    await provider.aclose()


async def submit(
    provider: FalProvider, model: str = "fal-ai/flux/dev", **changes: object
) -> ProviderRequest:
    work = {"prompt": "a fox", "image_size": {"width": 32, "height": 32}} | changes
    return await provider.submit(Submission("generation", model, work, None))


async def test_finished_work_has_its_media_in_order(
    provider: FalProvider, sandbox: RunningSandbox
) -> None:
    request = await submit(provider, num_images=3, output_format="png")
    await sandbox.settled(request.request_id)
    result = await provider.poll(request)
    assert isinstance(result, Succeeded)
    (record,) = sandbox.stats().requests
    assert [output.url for output in result.outputs] == [made.url for made in record.outputs]
    for output in result.outputs:
        assert (output.media_type, output.width, output.height) == ("image/png", 32, 32)
        assert output.expires_at is not None
        assert 590 < output.expires_at.timestamp() - time.time() <= 600


async def test_a_video_model_answers_with_one_moving_picture(
    provider: FalProvider, sandbox: RunningSandbox
) -> None:
    request = await submit(provider, model="fal-ai/video/fast")
    await sandbox.settled(request.request_id)
    result = await provider.poll(request)
    assert isinstance(result, Succeeded)
    assert [output.media_type for output in result.outputs] == ["image/gif"]


async def test_waiting_work_says_how_many_are_before_it(provider: FalProvider) -> None:
    first, second = [await submit(provider, sandbox={"queue_s": 60}) for _ in range(2)]
    assert await provider.poll(first) == Pending(0)
    assert await provider.poll(second) == Pending(1)


async def test_an_infrastructure_error_is_a_retryable_unbilled_failure(
    provider: FalProvider, sandbox: RunningSandbox
) -> None:
    request = await submit(provider, sandbox={"fail": "infrastructure"})
    await sandbox.settled(request.request_id)
    result = await provider.poll(request)
    assert isinstance(result, Failed)
    assert (result.code, result.retryable, result.billed) == ("runner_disconnected", True, False)


async def test_a_model_error_is_a_final_perhaps_billed_failure(
    provider: FalProvider, sandbox: RunningSandbox
) -> None:
    request = await submit(provider, sandbox={"fail": "model"})
    await sandbox.settled(request.request_id)
    result = await provider.poll(request)
    assert isinstance(result, Failed)
    assert result.code == "content_policy_violation"
    assert result.detail.startswith("body.prompt: ")
    assert (result.retryable, result.billed) == (False, None)


async def test_cancelled_work_ends(provider: FalProvider, sandbox: RunningSandbox) -> None:
    request = await submit(provider, sandbox={"queue_s": 60})
    await provider.cancel(request)
    await sandbox.settled(request.request_id)
    result = await provider.poll(request)
    assert isinstance(result, Failed)
    assert result.code == "client_cancelled"


async def test_finished_and_forgotten_work_needs_no_cancelling(
    provider: FalProvider, sandbox: RunningSandbox
) -> None:
    request = await submit(provider)
    await sandbox.settled(request.request_id)
    await provider.cancel(request)
    assert isinstance(await provider.poll(request), Succeeded)
    await provider.cancel(replace(request, cancel_url=f"{sandbox.url}/a/b/requests/none/cancel"))


async def test_a_forgotten_request_is_gone(provider: FalProvider, sandbox: RunningSandbox) -> None:
    requests = [await submit(provider) for _ in range(3)]
    for request in requests[1:]:
        await sandbox.settled(request.request_id)
    with pytest.raises(ResultGone):
        await provider.poll(requests[0])


@pytest.mark.parametrize(
    "fault",
    [
        {"poll": "drop"},
        {"poll": "never_answer"},
        {"poll": "html"},
        {"poll_status": 429},
        {"poll_status": 500},
        {"poll_status": 401},
    ],
)
async def test_a_poll_without_an_answer_says_so_and_the_next_may_have_one(
    provider: FalProvider, sandbox: RunningSandbox, fault: dict[str, Any]
) -> None:
    request = await submit(provider, sandbox=fault | {"poll_times": 1})
    await sandbox.settled(request.request_id)
    with pytest.raises(ProviderUnavailable):
        await provider.poll(request)
    assert isinstance(await provider.poll(request), Succeeded)


async def test_the_key_is_not_sent_to_a_url_of_another_host(
    provider: FalProvider, sandbox: RunningSandbox
) -> None:
    request = await submit(provider, sandbox={"queue_s": 60})
    foreign = replace(
        request,
        status_url=request.status_url.replace("127.0.0.1", "localhost"),
        cancel_url=request.cancel_url.replace("127.0.0.1", "localhost"),
    )
    with pytest.raises(ProviderUnavailable, match="allowed_hosts"):
        await provider.poll(foreign)
    with pytest.raises(ProviderUnavailable, match="allowed_hosts"):
        await provider.cancel(foreign)
    (record,) = sandbox.stats().requests
    assert (record.asked_status, record.cancelled) == (0, False)


async def test_a_dead_sandbox_is_unavailable(provider: FalProvider) -> None:
    request = await submit(provider)
    closed = httpx.URL(request.status_url).copy_with(port=1)
    foreign = sandbox_settings(f"http://127.0.0.1:{closed.port}", SecretStr("sandbox-key"))
    lost = sandbox_provider(foreign)
    with pytest.raises(ProviderUnavailable):
        await lost.poll(replace(request, status_url=str(closed)))
    await lost.aclose()


async def test_what_the_provider_keeps_is_deleted_and_deleting_again_is_no_error(
    provider: FalProvider, sandbox: RunningSandbox
) -> None:
    request = await submit(provider)
    await sandbox.settled(request.request_id)
    result = await provider.poll(request)
    assert isinstance(result, Succeeded)
    async with httpx.AsyncClient(trust_env=False) as web:
        assert (await web.get(result.outputs[0].url)).status_code == 200
        await provider.delete_sources(request)
        await provider.delete_sources(request)
        assert (await web.get(result.outputs[0].url)).status_code == 410
    with pytest.raises(ResultGone):
        await provider.poll(request)
