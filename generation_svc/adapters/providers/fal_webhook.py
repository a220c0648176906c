"""Believes fal's callbacks when they are signed with fal's keys, are fresh, and are for us.

https://docs.fal.ai/model-endpoints/webhooks
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, Any, Literal

import httpx
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from generation_svc.adapters.providers.fal_http import AnswerLost, NotSent, exchange
from generation_svc.adapters.providers.fal_payload import outputs_of, read_error, status_in
from generation_svc.application.provider import (
    Succeeded,
    WebhookKeysUnavailable,
    WebhookRejected,
    WebhookReport,
)

if TYPE_CHECKING:
    from datetime import datetime

    from generation_svc.adapters.providers.fal_settings import FalSettings
    from generation_svc.application.provider import WebhookCall

Keys = tuple[Ed25519PublicKey, ...]

_OK = 200
_MAX_KEYS = 16
_SIGNATURE_HEX_CHARS = 128
_MAX_TIMESTAMP_CHARS = 12


class _Key(BaseModel):
    kty: str
    crv: str | None = None
    x: str | None = None


class _KeySet(BaseModel):
    keys: tuple[_Key, ...] = Field(max_length=_MAX_KEYS)


class _Callback(BaseModel):
    model_config = ConfigDict(extra="ignore")

    request_id: str = Field(min_length=1, max_length=200)
    status: Literal["OK", "ERROR"]
    payload: Any = None
    error: str | None = None
    payload_error: str | None = None


class WebhookReader:
    """Verifies callbacks and reads what they report; keeps the keys."""

    def __init__(self, settings: FalSettings, client: httpx.AsyncClient) -> None:
        self._settings = settings
        self._client = client
        self._keys: Keys = ()
        self._fetched_at: datetime | None = None
        self._tried_at: datetime | None = None
        self._one_fetch = asyncio.Lock()

    async def read(self, call: WebhookCall, *, now: datetime) -> WebhookReport:
        """Verify and read.

        Raises:
            WebhookRejected: not to be believed, or without a result: polling finds that one.
            WebhookKeysUnavailable: cannot be checked now.
        """
        signature, message = self._signed(call, now)
        keys = await self._current(now)
        if not _signed_by(keys, signature, message):
            newer = await self._newer_than(keys, now)
            if not _signed_by(newer, signature, message):
                raise WebhookRejected("the signature is by none of the provider's keys")
        try:
            callback = _Callback.model_validate_json(call.body)
        except ValidationError as error:
            raise WebhookRejected("the body is not a callback's") from error
        if callback.request_id != call.headers["x-fal-webhook-request-id"]:
            raise WebhookRejected("the body is about another request than the signature")
        return _report(callback)

    def _signed(self, call: WebhookCall, now: datetime) -> tuple[bytes, bytes]:
        """The signature and what it must be of; everything that needs no key is checked here."""
        try:
            request_id, user_id, timestamp, signature = (
                call.headers[f"x-fal-webhook-{name}"]
                for name in ("request-id", "user-id", "timestamp", "signature")
            )
        except KeyError as missing:
            raise WebhookRejected(f"the header {missing} is missing") from None
        if not (timestamp.isascii() and timestamp.isdigit()) or (
            len(timestamp) > _MAX_TIMESTAMP_CHARS
        ):
            raise WebhookRejected("the time is not in whole seconds")
        if abs(now.timestamp() - int(timestamp)) > self._settings.webhook_tolerance_s:
            raise WebhookRejected("the time is too far from ours")
        expected = self._settings.webhook_user_id
        if expected is not None and user_id != expected:
            raise WebhookRejected("the callback is for another account")
        try:
            raw = bytes.fromhex(signature) if len(signature) == _SIGNATURE_HEX_CHARS else b""
        except ValueError:
            raw = b""
        if not raw:
            raise WebhookRejected("the signature is not 64 bytes in hexadecimal")
        digest = hashlib.sha256(call.body).hexdigest()
        return raw, f"{request_id}\n{user_id}\n{timestamp}\n{digest}".encode()

    async def _current(self, now: datetime) -> Keys:
        async with self._one_fetch:
            if self._fetched_at is not None:
                age_s = (now - self._fetched_at).total_seconds()
                if 0 <= age_s < self._settings.jwks_max_age_s:
                    return self._keys
            if not self._may_fetch(now):
                raise WebhookKeysUnavailable("the provider's keys could not be had a moment ago")
            return await self._fetch(now)

    async def _newer_than(self, known: Keys, now: datetime) -> Keys:
        """Keys change: look once more, unless somebody just did."""
        async with self._one_fetch:
            if self._keys is not known or not self._may_fetch(now):
                return self._keys
            return await self._fetch(now)

    def _may_fetch(self, now: datetime) -> bool:
        if self._tried_at is None:
            return True
        since_s = abs((now - self._tried_at).total_seconds())
        return since_s >= self._settings.jwks_refresh_wait_s

    async def _fetch(self, now: datetime) -> Keys:
        self._tried_at = now
        try:
            answer = await exchange(
                self._client,
                "GET",
                httpx.URL(self._settings.jwks_url),
                deadline_s=self._settings.poll_deadline_s,
                max_answer_bytes=self._settings.max_answer_bytes,
            )
        except (NotSent, AnswerLost) as error:
            raise WebhookKeysUnavailable(f"no keys from the provider: {error}") from error
        if answer.status != _OK:
            raise WebhookKeysUnavailable(f"no keys from the provider: status {answer.status}")
        self._keys = _keys_in(answer.body)
        self._fetched_at = now
        return self._keys


def _keys_in(body: bytes) -> Keys:
    """The Ed25519 keys of a JSON Web Key Set (RFC 8037); keys of other kinds are none of ours."""
    try:
        found = tuple(
            Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(f"{key.x}=="))
            for key in _KeySet.model_validate_json(body).keys
            if key.kty == "OKP" and key.crv == "Ed25519" and key.x
        )
    except (ValidationError, binascii.Error, ValueError) as error:
        raise WebhookKeysUnavailable("the provider's key set cannot be read") from error
    if not found:
        raise WebhookKeysUnavailable("the provider's key set holds no Ed25519 key")
    return found


def _signed_by(keys: Keys, signature: bytes, message: bytes) -> bool:
    for key in keys:
        try:
            key.verify(signature, message)
        except InvalidSignature:
            continue
        return True
    return False


def _report(callback: _Callback) -> WebhookReport:
    if callback.status == "ERROR":
        status = status_in(callback.error)
        error = read_error(callback.payload, status=status, headers={}, said=callback.error)
        return WebhookReport(callback.request_id, error.failed())
    if callback.payload is None:
        why = callback.payload_error or "it says no reason"
        raise WebhookRejected(f"the callback does not carry the result: {why}")
    return WebhookReport(callback.request_id, Succeeded(outputs_of(callback.payload)))
