"""Callbacks signed as fal signs them, delivered with patience."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from velro.sandbox.settings import SandboxSettings

log = structlog.get_logger()

# Twice the 300 s that a receiver may tolerate.
_STALE_BY_S = 600


@dataclass(frozen=True, slots=True)
class Callback:
    """One callback to deliver."""

    url: str
    request_id: str
    body: Mapping[str, Any]
    forged: bool = False
    stale: bool = False


class SigningKey:
    """An Ed25519 key made at start, published as a JWKS.

    Signed are four lines, the request's id, the account's, the time and the body's sha256, as
    https://docs.fal.ai/model-endpoints/webhooks says.
    """

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()

    def jwks(self) -> dict[str, Any]:
        """The public half, as a JSON Web Key Set (RFC 8037)."""
        x = base64.urlsafe_b64encode(self._key.public_key().public_bytes_raw())
        return {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x.rstrip(b"=").decode()}]}

    def headers(
        self, *, request_id: str, user_id: str, timestamp: int, body: bytes
    ) -> dict[str, str]:
        """The four headers of a signed callback. `timestamp` is in seconds since 1970."""
        digest = hashlib.sha256(body).hexdigest()
        message = f"{request_id}\n{user_id}\n{timestamp}\n{digest}".encode()
        return {
            "X-Fal-Webhook-Request-Id": request_id,
            "X-Fal-Webhook-User-Id": user_id,
            "X-Fal-Webhook-Timestamp": str(timestamp),
            "X-Fal-Webhook-Signature": self._key.sign(message).hex(),
        }


class WebhookSender:
    """Delivers callbacks: a bounded number of tries, each with a deadline, waits doubling."""

    def __init__(self, settings: SandboxSettings, key: SigningKey) -> None:
        self._settings = settings
        self._key = key
        # No proxy from the environment: callbacks go to loopback.
        self._client = httpx.AsyncClient(trust_env=False, timeout=settings.webhook_deadline_s)

    async def deliver(self, callback: Callback) -> int | None:
        """Send until it is taken with a 2xx; how many tries it took, None when given up."""
        settings = self._settings
        body = json.dumps(callback.body).encode()
        wait_s = settings.webhook_first_wait_s
        for attempt in range(1, settings.webhook_attempts + 1):
            if await self._attempt(callback, body):
                return attempt
            if attempt < settings.webhook_attempts:
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, settings.webhook_longest_wait_s)
        log.warning("webhook_given_up", request_id=callback.request_id, url=callback.url)
        return None

    async def close(self) -> None:
        """Close the connections. Deliveries under way must have ended."""
        await self._client.aclose()

    async def _attempt(self, callback: Callback, body: bytes) -> bool:
        key = SigningKey() if callback.forged else self._key
        headers = key.headers(
            request_id=callback.request_id,
            user_id=self._settings.user_id,
            timestamp=int(time.time()) - (_STALE_BY_S if callback.stale else 0),
            body=body,
        )
        headers["Content-Type"] = "application/json"
        try:
            async with asyncio.timeout(self._settings.webhook_deadline_s):
                answer = await self._client.post(callback.url, content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            log.info("webhook_not_taken", request_id=callback.request_id, why=repr(error))
            return False
        return answer.is_success
