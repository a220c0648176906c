from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from generation_svc.adapters.providers.fal import FalProvider, sandbox_provider, sandbox_settings
from generation_svc.application.provider import (
    Submission,
    SubmitOutcomeUnknown,
    SubmitRefused,
    SubmitTryLater,
)
from velro.sandbox.faults import Faults
from velro.sandbox.server import RunningSandbox, listen, running_sandbox
from velro.sandbox.settings import SandboxSettings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

GENERATION = "0190d5a4-7e1c-7c00-8000-000000000001"


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncGenerator[RunningSandbox, None]:
    async with running_sandbox(SandboxSettings(data=tmp_path)) as running:
        yield running


@asynccontextmanager
async def provider_at(
    url: str, *, key: str = "sandbox-key", **changes: object
) -> AsyncGenerator[FalProvider, None]:
    settings = sandbox_settings(url, SecretStr(key)).model_copy(update=changes)
    provider = sandbox_provider(settings)
    try:
        yield provider
    finally:
        await provider.aclose()


@asynccontextmanager
async def server_that_answers(answer: bytes, requests: list[bytes]) -> AsyncGenerator[str, None]:
    """Reads one request, writes these bytes, closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        server.close()
        await server.wait_closed()


def submission(
    model: str = "fal-ai/flux/dev", webhook_url: str | None = None, **changes: object
) -> Submission:
    return Submission(
        generation_id=GENERATION,
        model=model,
        input={"prompt": "a fox", "image_size": {"width": 32, "height": 32}} | changes,
        webhook_url=webhook_url,
    )


async def test_a_submission_is_taken_and_named(sandbox: RunningSandbox) -> None:
    async with provider_at(sandbox.url) as provider:
        taken = await provider.submit(submission())
    base = f"{sandbox.url}/fal-ai/flux/requests/{taken.request_id}"
    assert taken.response_url == base
    assert taken.status_url == f"{base}/status"
    assert taken.cancel_url == f"{base}/cancel"
    assert sandbox.stats().taken == {GENERATION: 1}


async def test_a_refused_connection_was_never_made() -> None:
    listener = listen()
    host, port = listener.getsockname()[:2]
    listener.close()
    async with provider_at(f"http://{host}:{port}") as provider:
        with pytest.raises(SubmitTryLater):
            await provider.submit(submission())


async def test_a_failed_handshake_sends_nothing(sandbox: RunningSandbox) -> None:
    async with provider_at(sandbox.url.replace("http:", "https:")) as provider:
        with pytest.raises(SubmitTryLater):
            await provider.submit(submission())
    assert sandbox.stats().posted == {}


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_a_busy_provider_took_nothing(sandbox: RunningSandbox, status: int) -> None:
    async with provider_at(sandbox.url) as provider:
        with pytest.raises(SubmitTryLater) as caught:
            await provider.submit(
                submission(sandbox={"submit_status": status, "submit_retry_after": "7"})
            )
    assert caught.value.retry_after_s == 7.0
    assert sandbox.stats().posted == {GENERATION: 1}
    assert sandbox.stats().taken == {}


async def test_retry_after_may_be_a_date(sandbox: RunningSandbox) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    async with provider_at(sandbox.url) as provider:
        with pytest.raises(SubmitTryLater) as caught:
            await provider.submit(
                submission(sandbox={"submit_status": 429, "submit_retry_after": date})
            )
    assert caught.value.retry_after_s is not None
    assert 55 <= caught.value.retry_after_s <= 62


@pytest.mark.parametrize("value", ["soon", "-5", "Mon, 99 Foo 2026"])
async def test_a_retry_after_that_says_nothing_is_none(sandbox: RunningSandbox, value: str) -> None:
    async with provider_at(sandbox.url) as provider:
        with pytest.raises(SubmitTryLater) as caught:
            await provider.submit(
                submission(sandbox={"submit_status": 503, "submit_retry_after": value})
            )
    assert caught.value.retry_after_s is None


async def test_a_busy_provider_takes_the_next_submission(sandbox: RunningSandbox) -> None:
    faults = {"submit_status": 503, "submit_times": 1}
    async with provider_at(sandbox.url) as provider:
        with pytest.raises(SubmitTryLater):
            await provider.submit(submission(sandbox=faults))
        await provider.submit(submission(sandbox=faults))
    assert sandbox.stats().posted == {GENERATION: 2}
    assert sandbox.stats().taken == {GENERATION: 1}


async def test_a_wrong_key_is_refused_and_costs_nothing(sandbox: RunningSandbox) -> None:
    async with provider_at(sandbox.url, key="another") as provider:
        with pytest.raises(SubmitRefused) as caught:
            await provider.submit(submission())
    assert (caught.value.code, caught.value.billed) == ("http_401", False)


async def test_an_input_that_the_model_refuses_says_where(sandbox: RunningSandbox) -> None:
    async with provider_at(sandbox.url) as provider:
        with pytest.raises(SubmitRefused) as caught:
            await provider.submit(submission(num_images=99))
    assert caught.value.code == "less_than_equal"
    assert "num_images" in caught.value.detail
    assert caught.value.billed is None


async def test_an_error_in_the_flat_shape_keeps_its_type(sandbox: RunningSandbox) -> None:
    async with provider_at(sandbox.url) as provider:
        with pytest.raises(SubmitRefused) as caught:
            await provider.submit(submission(sandbox={"submit_status": 403}))
    assert caught.value.code == "told_to_refuse"
    assert caught.value.detail == "Told to refuse"


@pytest.mark.parametrize(
    ("fault", "taken"),
    [
        ("drop_untaken", 0),
        ("drop_taken", 1),
        ("cut_answer", 1),
        ("never_answer", 1),
        ("html", 1),
        ("foreign_urls", 1),
    ],
)
async def test_without_a_usable_answer_nobody_knows_and_nothing_is_sent_again(
    sandbox: RunningSandbox, fault: str, taken: int
) -> None:
    async with provider_at(sandbox.url, submit_deadline_s=1.0) as provider:
        with pytest.raises(SubmitOutcomeUnknown):
            await provider.submit(submission(sandbox={"submit": fault}))
    assert sandbox.stats().posted == {GENERATION: 1}
    assert sandbox.stats().taken.get(GENERATION, 0) == taken


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n" + b"[" * 5000,
        b"not HTTP at all\r\n\r\n",
    ],
)
async def test_an_answer_that_says_nothing_leaves_the_outcome_unknown(answer: bytes) -> None:
    requests: list[bytes] = []
    async with (
        server_that_answers(answer, requests) as url,
        provider_at(url, max_answer_bytes=2000) as provider,
    ):
        with pytest.raises(SubmitOutcomeUnknown):
            await provider.submit(submission())
    assert len(requests) == 1


async def test_a_redirect_is_not_followed_with_the_key() -> None:
    elsewhere: list[bytes] = []
    here: list[bytes] = []
    async with server_that_answers(b"", elsewhere) as other:
        answer = f"HTTP/1.1 307 Temporary\r\nlocation: {other}/\r\ncontent-length: 0\r\n\r\n"
        async with (
            server_that_answers(answer.encode(), here) as url,
            provider_at(url) as provider,
        ):
            with pytest.raises(SubmitOutcomeUnknown):
                await provider.submit(submission())
    assert (len(here), elsewhere) == (1, [])


async def test_a_submission_carries_key_lifetime_and_webhook() -> None:
    requests: list[bytes] = []
    async with (
        server_that_answers(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", requests) as url,
        provider_at(url, object_lifetime_s=600) as provider,
    ):
        with pytest.raises(SubmitTryLater):
            await provider.submit(submission(webhook_url="http://velro.example/hook?token=a&b=c"))
    head = requests[0].decode()
    assert head.startswith(
        "POST /fal-ai/flux/dev?fal_webhook=http%3A%2F%2Fvelro.example%2Fhook%3Ftoken%3Da%26b%3Dc "
    )
    lines = {
        line.partition(": ")[0].lower(): line.partition(": ")[2] for line in head.split("\r\n")
    }
    assert lines["authorization"] == "Key sandbox-key"
    lifetime = json.loads(lines["x-fal-object-lifecycle-preference"])
    assert lifetime == {"expiration_duration_seconds": 600}


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"sync_mode": True}, "sync_mode_unsupported"),
        ({"strength": float("nan")}, "bad_input"),
        ({"model": "flux"}, "bad_model"),
        ({"model": "fal-ai/../admin"}, "bad_model"),
        ({"model": "fal-ai/flux?x=1"}, "bad_model"),
        ({"model": "//evil.example/x"}, "bad_model"),
    ],
)
async def test_what_cannot_be_kept_or_sent_is_refused_before_it_costs(
    sandbox: RunningSandbox, wrong: dict[str, Any], code: str
) -> None:
    async with provider_at(sandbox.url) as provider:
        with pytest.raises(SubmitRefused) as caught:
            await provider.submit(submission(**wrong))
    assert (caught.value.code, caught.value.billed) == (code, False)
    assert sandbox.stats().posted == {}


async def test_faults_can_be_set_for_all_requests(sandbox: RunningSandbox) -> None:
    sandbox.set_faults(Faults(submit_status=503))
    async with provider_at(sandbox.url) as provider:
        with pytest.raises(SubmitTryLater):
            await provider.submit(submission())
        sandbox.set_faults(Faults())
        await provider.submit(submission())
