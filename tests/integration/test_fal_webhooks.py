from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from generation_svc.adapters.providers.fal import FalProvider
from generation_svc.adapters.providers.fal_settings import FalSettings
from generation_svc.application.provider import (
    Failed,
    Succeeded,
    WebhookCall,
    WebhookKeysUnavailable,
    WebhookRejected,
)
from velro.sandbox.server import SandboxServer, listen

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
USER = "our-account"
BODY = json.dumps(
    {
        "request_id": "r-1",
        "gateway_request_id": "r-1",
        "status": "OK",
        "payload": {"images": [{"url": "https://v3.fal.media/a.png"}]},
    }
).encode()


class KeyServer:
    """Publishes keys as fal does; counts how often it is asked, and notes the keys sent to it."""

    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.asked = 0
        self.status = 200
        self.authorizations: list[str] = []
        self.url = ""

    async def answer(self, request: Request) -> Response:
        self.asked += 1
        self.authorizations += request.headers.getlist("authorization")
        x = base64.urlsafe_b64encode(self.key.public_key().public_bytes_raw()).rstrip(b"=")
        other = {"kty": "RSA", "n": "AQAB", "e": "AQAB"}
        ours = {"kty": "OKP", "crv": "Ed25519", "x": x.decode()}
        return JSONResponse({"keys": [other, ours]}, self.status)

    def sign(self, body: bytes = BODY, *, at: datetime = NOW, user: str = USER) -> WebhookCall:
        """As fal signs, written down here a second time and on purpose without our code."""
        timestamp = str(int(at.timestamp()))
        text = "\n".join(["r-1", user, timestamp, hashlib.sha256(body).hexdigest()])
        headers = {
            "x-fal-webhook-request-id": "r-1",
            "x-fal-webhook-user-id": user,
            "x-fal-webhook-timestamp": timestamp,
            "x-fal-webhook-signature": self.key.sign(text.encode()).hex(),
        }
        return WebhookCall(headers, body)


@pytest.fixture
async def keys() -> AsyncGenerator[KeyServer, None]:
    server = KeyServer()
    app = Starlette(routes=[Route("/jwks", server.answer)])
    async with serving(app) as url:
        server.url = f"{url}/jwks"
        yield server


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
async def provider(keys: KeyServer) -> AsyncGenerator[FalProvider, None]:
    provider = FalProvider(
        FalSettings(
            key=SecretStr("secret"),
            jwks_url=keys.url,
            allow_http=True,
            webhook_user_id=USER,
            jwks_refresh_wait_s=30,
        )
    )
    yield provider
    await provider.aclose()


async def test_a_signed_callback_is_believed(provider: FalProvider, keys: KeyServer) -> None:
    report = await provider.read_webhook(keys.sign(), now=NOW)
    assert report.request_id == "r-1"
    assert isinstance(report.result, Succeeded)
    assert [output.url for output in report.result.outputs] == ["https://v3.fal.media/a.png"]


async def test_the_keys_are_fetched_once_and_without_our_key(
    provider: FalProvider, keys: KeyServer
) -> None:
    for minutes in range(5):
        at = NOW + timedelta(minutes=minutes)
        await provider.read_webhook(keys.sign(at=at), now=at)
    assert keys.asked == 1
    assert keys.authorizations == []


async def test_an_error_callback_is_a_failure(provider: FalProvider, keys: KeyServer) -> None:
    body = json.dumps(
        {
            "request_id": "r-1",
            "status": "ERROR",
            "error": "Unexpected status code: 422",
            "payload": {"detail": [{"loc": ["body", "x"], "msg": "no", "type": "value_error"}]},
        }
    ).encode()
    report = await provider.read_webhook(keys.sign(body), now=NOW)
    assert report.result == Failed("value_error", "body.x: no", retryable=False, billed=None)


@pytest.mark.parametrize("seconds", [-301, 301, -86_400])
async def test_a_callback_from_another_time_is_refused(
    provider: FalProvider, keys: KeyServer, seconds: int
) -> None:
    with pytest.raises(WebhookRejected, match="time"):
        await provider.read_webhook(keys.sign(at=NOW + timedelta(seconds=seconds)), now=NOW)


@pytest.mark.parametrize("seconds", [-299, 299])
async def test_clocks_may_differ_a_little(
    provider: FalProvider, keys: KeyServer, seconds: int
) -> None:
    await provider.read_webhook(keys.sign(at=NOW + timedelta(seconds=seconds)), now=NOW)


async def test_a_callback_for_another_account_is_refused(
    provider: FalProvider, keys: KeyServer
) -> None:
    with pytest.raises(WebhookRejected, match="account"):
        await provider.read_webhook(keys.sign(user="another"), now=NOW)


@pytest.mark.parametrize("header", ["request-id", "user-id", "timestamp", "signature"])
async def test_a_callback_without_a_header_is_refused(
    provider: FalProvider, keys: KeyServer, header: str
) -> None:
    call = keys.sign()
    headers = {k: v for k, v in call.headers.items() if k != f"x-fal-webhook-{header}"}
    with pytest.raises(WebhookRejected, match=header):
        await provider.read_webhook(replace(call, headers=headers), now=NOW)
    assert keys.asked == 0


@pytest.mark.parametrize(
    "change",
    [
        {"x-fal-webhook-request-id": "r-2"},
        {"x-fal-webhook-signature": "00" * 64},
        {"x-fal-webhook-signature": "0" * 128 + "ff"},
        {"x-fal-webhook-signature": "zz" * 64},
        {"x-fal-webhook-signature": ""},
        {"x-fal-webhook-timestamp": "1e9"},
        {"x-fal-webhook-timestamp": "-1"},
        {"x-fal-webhook-timestamp": "9" * 400},
        {"x-fal-webhook-timestamp": "٣"},
    ],
)
async def test_a_changed_header_is_refused(
    provider: FalProvider, keys: KeyServer, change: dict[str, str]
) -> None:
    call = keys.sign()
    with pytest.raises(WebhookRejected):
        await provider.read_webhook(replace(call, headers={**call.headers, **change}), now=NOW)


async def test_a_changed_body_is_refused(provider: FalProvider, keys: KeyServer) -> None:
    call = replace(keys.sign(), body=BODY.replace(b"a.png", b"b.png"))
    with pytest.raises(WebhookRejected):
        await provider.read_webhook(call, now=NOW)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"request_id": "r-1"}',
        b'{"request_id": "r-1", "status": "MAYBE"}',
        b'{"request_id": "r-2", "status": "OK", "payload": {}}',
        b'{"request_id": "r-1", "status": "OK", "payload": null, "payload_error": "too odd"}',
        b"[" * 100_000,
    ],
)
async def test_a_signed_body_that_is_no_result_is_refused(
    provider: FalProvider, keys: KeyServer, body: bytes
) -> None:
    with pytest.raises(WebhookRejected):
        await provider.read_webhook(keys.sign(body), now=NOW)


async def test_a_new_key_is_found_by_looking_once_more(
    provider: FalProvider, keys: KeyServer
) -> None:
    await provider.read_webhook(keys.sign(), now=NOW)
    keys.key = Ed25519PrivateKey.generate()
    later = NOW + timedelta(seconds=31)
    await provider.read_webhook(keys.sign(at=later), now=later)
    assert keys.asked == 2


async def test_forged_callbacks_do_not_make_us_hammer_the_key_server(
    provider: FalProvider, keys: KeyServer
) -> None:
    await provider.read_webhook(keys.sign(), now=NOW)
    forged = KeyServer()
    for second in range(60):
        at = NOW + timedelta(seconds=second)
        with pytest.raises(WebhookRejected):
            await provider.read_webhook(forged.sign(at=at), now=at)
    assert keys.asked == 2


async def test_keys_older_than_a_day_are_not_believed(
    provider: FalProvider, keys: KeyServer
) -> None:
    await provider.read_webhook(keys.sign(), now=NOW)
    keys.status = 503
    later = NOW + timedelta(hours=25)
    with pytest.raises(WebhookKeysUnavailable):
        await provider.read_webhook(keys.sign(at=later), now=later)


async def test_without_keys_nothing_is_believed(provider: FalProvider, keys: KeyServer) -> None:
    keys.status = 500
    with pytest.raises(WebhookKeysUnavailable):
        await provider.read_webhook(keys.sign(), now=NOW)
    with pytest.raises(WebhookKeysUnavailable):
        await provider.read_webhook(keys.sign(), now=NOW)
    assert keys.asked == 1
    keys.status = 200
    later = NOW + timedelta(seconds=31)
    await provider.read_webhook(keys.sign(at=later), now=later)
