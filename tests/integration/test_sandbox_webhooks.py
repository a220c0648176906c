from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import uvicorn
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from generation_svc.adapters.providers.fal import FalProvider, sandbox_provider, sandbox_settings
from generation_svc.application.provider import (
    Failed,
    Submission,
    Succeeded,
    WebhookCall,
    WebhookRejected,
)
from velro.sandbox.server import RunningSandbox, SandboxServer, listen, running_sandbox
from velro.sandbox.settings import SandboxSettings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from starlette.requests import Request


class Receiver:
    """Takes callbacks; the first answers are the statuses it was given, then 200."""

    def __init__(self) -> None:
        self.url = ""
        self.statuses: list[int] = []
        self.calls: list[WebhookCall] = []
        self.called = asyncio.Event()

    async def take(self, request: Request) -> Response:
        self.calls.append(WebhookCall(dict(request.headers), await request.body()))
        self.called.set()
        return Response(status_code=self.statuses.pop(0) if self.statuses else 200)


@pytest.fixture
async def receiver() -> AsyncGenerator[Receiver, None]:
    taking = Receiver()
    app = Starlette(routes=[Route("/hook", taking.take, methods=["POST"])])
    async with serving(app) as url:
        taking.url = f"{url}/hook"
        yield taking


@asynccontextmanager
async def serving(app: Starlette) -> AsyncGenerator[str, None]:
    config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none")
    listener = listen()
    listening = asyncio.Event()
    server = SandboxServer(config, asyncio.Event(), listening.set)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    async with asyncio.timeout(10):
        await listening.wait()
    host, port = listener.getsockname()[:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()
        await task


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncGenerator[RunningSandbox, None]:
    settings = SandboxSettings(
        data=tmp_path, webhook_attempts=4, webhook_first_wait_s=0.02, webhook_deadline_s=2
    )
    async with running_sandbox(settings) as running:
        yield running


@pytest.fixture
async def provider(sandbox: RunningSandbox) -> AsyncGenerator[FalProvider, None]:
    provider = sandbox_provider(sandbox_settings(sandbox.url, SecretStr("sandbox-key")))
    yield provider
    await provider.aclose()


async def run(
    provider: FalProvider, sandbox: RunningSandbox, receiver: Receiver, **faults: object
) -> str:
    """Submit, and wait until the callback is through; the request's id."""
    work = {"prompt": "a fox", "image_size": {"width": 32, "height": 32}, "sandbox": faults}
    taken = await provider.submit(Submission("g", "fal-ai/flux", work, receiver.url))
    async with asyncio.timeout(20):
        await sandbox.settled(taken.request_id)
    return taken.request_id


async def test_a_callback_brings_the_same_result_as_polling(
    provider: FalProvider, sandbox: RunningSandbox, receiver: Receiver
) -> None:
    work = {"prompt": "a fox", "num_images": 2, "image_size": {"width": 32, "height": 32}}
    taken = await provider.submit(Submission("g", "fal-ai/flux", work, receiver.url))
    await sandbox.settled(taken.request_id)
    (call,) = receiver.calls
    report = await provider.read_webhook(call, now=datetime.now(UTC))
    assert report.request_id == taken.request_id
    assert isinstance(report.result, Succeeded)
    assert report.result == await provider.poll(taken)


@pytest.mark.parametrize(
    ("fail", "code"),
    [("model", "content_policy_violation"), ("infrastructure", "runner_disconnected")],
)
async def test_a_callback_brings_a_failure(
    provider: FalProvider, sandbox: RunningSandbox, receiver: Receiver, fail: str, code: str
) -> None:
    await run(provider, sandbox, receiver, fail=fail)
    (call,) = receiver.calls
    report = await provider.read_webhook(call, now=datetime.now(UTC))
    assert isinstance(report.result, Failed)
    assert report.result.code == code
    assert report.result.billed is (False if fail == "infrastructure" else None)


async def test_a_callback_is_sent_again_until_it_is_taken(
    provider: FalProvider, sandbox: RunningSandbox, receiver: Receiver
) -> None:
    receiver.statuses = [500, 503]
    await run(provider, sandbox, receiver)
    assert len(receiver.calls) == 3
    assert sandbox.stats().requests[0].webhook_tries == 3


async def test_a_callback_that_nobody_takes_is_given_up(
    provider: FalProvider, sandbox: RunningSandbox, receiver: Receiver
) -> None:
    receiver.statuses = [500] * 9
    await run(provider, sandbox, receiver)
    assert len(receiver.calls) == 4
    assert sandbox.stats().requests[0].webhook_tries is None


async def test_a_callback_can_be_withheld(
    provider: FalProvider, sandbox: RunningSandbox, receiver: Receiver
) -> None:
    await run(provider, sandbox, receiver, webhook="withheld")
    assert receiver.calls == []


async def test_a_callback_can_come_twice(
    provider: FalProvider, sandbox: RunningSandbox, receiver: Receiver
) -> None:
    await run(provider, sandbox, receiver, webhook="duplicated")
    reports = [await provider.read_webhook(c, now=datetime.now(UTC)) for c in receiver.calls]
    assert len(reports) == 2
    assert reports[0] == reports[1]


@pytest.mark.parametrize("how", ["bad_signature", "stale"])
async def test_a_callback_can_be_unbelievable(
    provider: FalProvider, sandbox: RunningSandbox, receiver: Receiver, how: str
) -> None:
    await run(provider, sandbox, receiver, webhook=how)
    (call,) = receiver.calls
    with pytest.raises(WebhookRejected):
        await provider.read_webhook(call, now=datetime.now(UTC))


async def test_a_callback_can_come_before_the_submission_is_answered(
    provider: FalProvider, sandbox: RunningSandbox, receiver: Receiver
) -> None:
    work = {"prompt": "a fox", "sandbox": {"webhook": "early"}}
    taken = await provider.submit(Submission("g", "fal-ai/flux", work, receiver.url))
    (call,) = receiver.calls
    report = await provider.read_webhook(call, now=datetime.now(UTC))
    assert report.request_id == taken.request_id
    assert sandbox.stats().taken == {"g": 1}


async def test_stopping_does_not_wait_for_a_callback_that_nobody_takes(
    tmp_path: Path, receiver: Receiver
) -> None:
    receiver.statuses = [500] * 99
    settings = SandboxSettings(data=tmp_path, webhook_first_wait_s=60, drain_s=0.2)
    loop = asyncio.get_running_loop()
    async with running_sandbox(settings) as sandbox:
        provider = sandbox_provider(sandbox_settings(sandbox.url, SecretStr("sandbox-key")))
        await provider.submit(Submission("g", "fal-ai/flux", {"prompt": "x"}, receiver.url))
        await provider.aclose()
        async with asyncio.timeout(10):
            await receiver.called.wait()
        started = loop.time()
    assert loop.time() - started < 3
