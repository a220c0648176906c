"""fal's queue behind the provider port (https://docs.fal.ai/model-endpoints/queue).

Not fal's own client: that one sends a submission again after a time-out, up to ten times, and each
may be billed, because fal has no idempotency key.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ConfigDict

from generation_svc.adapters.providers.fal_http import (
    AnswerLost,
    HttpAnswer,
    NotSent,
    exchange,
    parse,
)
from generation_svc.adapters.providers.fal_payload import error_in, outputs_of
from generation_svc.adapters.providers.fal_settings import AllowedUrls, FalSettings
from generation_svc.adapters.providers.fal_submission import content_of, taken_from
from generation_svc.adapters.providers.fal_webhook import WebhookReader
from generation_svc.application.provider import (
    Failed,
    Pending,
    ProviderRequest,
    ProviderTraits,
    ProviderUnavailable,
    ResultGone,
    SubmitOutcomeUnknown,
    SubmitTryLater,
    Succeeded,
)

if TYPE_CHECKING:
    from datetime import datetime

    from pydantic import SecretStr

    from generation_svc.application.provider import (
        Progress,
        Result,
        Submission,
        WebhookCall,
        WebhookReport,
    )

# fal keeps results for 1 h, those of 10 KB and more for 6 min
# (https://docs.fal.ai/documentation/model-apis/inference/queue); we cannot tell which it will be.
_REFETCH_WINDOW_S = 360.0

_OK = 200
_CLIENT_ERRORS = range(400, 500)
_SERVER_ERRORS = range(500, 600)
_GONE = frozenset({404, 410})
_ALREADY_COMPLETED = 400
# Refusals of us rather than of the request: a new key, or patience, changes them.
_NOT_THE_RESULT = frozenset({401, 403, 408, 425, 429})


class _Status(BaseModel):
    model_config = ConfigDict(extra="ignore")

    status: Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
    queue_position: int | None = None
    error: str | None = None
    error_type: str | None = None


class _DeletedFile(BaseModel):
    model_config = ConfigDict(extra="ignore")

    link: str = ""
    exception: str | None = None


class _Deleted(BaseModel):
    model_config = ConfigDict(extra="ignore")

    cdn_delete_results: list[_DeletedFile]


class FalProvider:
    """Runs generations at fal, or at whatever speaks its protocol. `aclose` it at the end."""

    def __init__(self, settings: FalSettings, *, name: str = "fal") -> None:
        self._settings = settings
        self._allowed = AllowedUrls(settings)
        self._traits = ProviderTraits(
            name=name,
            link_lifetime_s=float(settings.object_lifetime_s),
            refetch_window_s=_REFETCH_WINDOW_S,
            download_needs_key=False,
            idempotent_submit=False,
            deletes_sources=True,
        )
        # A kept connection may have been closed by the other side just as the submission leaves
        # on it, and then nobody knows what became of it: every submission gets a new one.
        self._submitter = _client(settings, httpx.Limits(max_keepalive_connections=0))
        # 2 s: below the 5 s after which common servers close idle connections.
        self._poller = _client(
            settings, httpx.Limits(max_keepalive_connections=20, keepalive_expiry=2.0)
        )
        self._webhooks = WebhookReader(settings, self._poller)

    @property
    def traits(self) -> ProviderTraits:
        """What fal promises, with the lifetime of links that we ask for."""
        return self._traits

    async def submit(self, submission: Submission) -> ProviderRequest:
        """Make the one paid call.

        Raises:
            SubmitRefused: a 4xx, or an input that could not be used.
            SubmitTryLater: no connection, 408, 425, 429, 500, 503.
            SubmitOutcomeUnknown: no whole answer, none that can be used, or a gateway's 502 or
                504.
        """
        content = content_of(submission)
        url = httpx.URL(f"{self._settings.queue_url.rstrip('/')}/{submission.model}")
        if submission.webhook_url is not None:
            url = url.copy_merge_params({"fal_webhook": submission.webhook_url})
        lifetime = {"expiration_duration_seconds": self._settings.object_lifetime_s}
        try:
            answer = await exchange(
                self._submitter,
                "POST",
                url,
                headers=_headers(self._settings.key)
                | {
                    "Content-Type": "application/json",
                    "X-Fal-Object-Lifecycle-Preference": json.dumps(lifetime),
                    # fal has no use for it; it finds a call again in logs and in the sandbox.
                    "X-Velro-Generation-Id": submission.generation_id,
                },
                content=content,
                deadline_s=self._settings.submit_deadline_s,
                max_answer_bytes=self._settings.max_answer_bytes,
            )
        except NotSent as error:
            raise SubmitTryLater(f"no connection to the provider: {error}") from error
        except AnswerLost as error:
            raise SubmitOutcomeUnknown(f"the submission's answer was lost: {error}") from error
        return taken_from(answer, self._allowed)

    async def poll(self, request: ProviderRequest) -> Progress:
        """Ask for the status, and for the result when that says COMPLETED.

        Raises:
            ProviderUnavailable: no usable answer.
            ResultGone: fal does not know the request, or no longer knows its result.
        """
        answer = await self._ask("GET", request.status_url)
        if answer.status in _GONE:
            raise ResultGone(f"the provider does not know request {request.request_id}")
        status = parse(_Status, answer) if answer.status in {200, 202} else None
        if status is None:
            raise ProviderUnavailable(f"the status cannot be used: HTTP {answer.status}")
        match status.status:
            case "IN_QUEUE":
                return Pending(status.queue_position)
            case "IN_PROGRESS":
                return Pending()
            case "COMPLETED":
                return await self._result(request, status)

    async def cancel(self, request: ProviderRequest) -> None:
        """Ask to stop the work; work that is finished or forgotten needs no stopping.

        Raises:
            ProviderUnavailable: no usable answer.
        """
        answer = await self._ask("PUT", request.cancel_url)
        if answer.status in range(200, 300) or answer.status in _GONE:
            return
        if answer.status == _ALREADY_COMPLETED and b"ALREADY_COMPLETED" in answer.body:
            return
        raise ProviderUnavailable(f"cancelling was answered with HTTP {answer.status}")

    async def delete_sources(self, request: ProviderRequest) -> None:
        """Delete the request's payloads and the files of its outputs.

        https://fal.ai/docs/platform-apis/v1/models/requests/payloads: it takes an admin key, and
        the files of inputs stay.

        Raises:
            ProviderUnavailable: no usable answer.
        """
        base = self._settings.platform_url.rstrip("/")
        url = httpx.URL(f"{base}/models/requests/{quote(request.request_id, safe='')}/payloads")
        answer = await self._exchanged("DELETE", url, key=self._settings.deleting_key)
        if answer.status in _GONE:
            return
        if answer.status not in range(200, 300):
            raise ProviderUnavailable(f"deleting was answered with HTTP {answer.status}")
        deleted = parse(_Deleted, answer)
        if deleted is None:
            raise ProviderUnavailable("the answer to deleting cannot be used")
        if left := [each for each in deleted.cdn_delete_results if each.exception]:
            raise ProviderUnavailable(f"{len(left)} files were not deleted: {left[0].exception}")

    async def read_webhook(self, call: WebhookCall, *, now: datetime) -> WebhookReport:
        """Verify a callback and read it.

        Raises:
            WebhookRejected: not to be believed.
            WebhookKeysUnavailable: cannot be checked now.
        """
        return await self._webhooks.read(call, now=now)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._submitter.aclose()
        await self._poller.aclose()

    async def _result(self, request: ProviderRequest, said: _Status) -> Result:
        """The result, or the error, which the result's answer tells more about than the status."""
        answer = await self._ask("GET", request.response_url)
        failed = said.error is not None
        if answer.status == _OK and not failed:
            try:
                return Succeeded(outputs_of(answer.json()))
            except ValueError as error:
                raise ProviderUnavailable("the result is not JSON") from error
        error = error_in(answer, said=said.error)
        if failed and not (error.typed and answer.status >= _CLIENT_ERRORS.start):
            return _failed_status(said)
        if failed:
            return error.failed()
        if answer.status in _GONE:
            raise ResultGone(f"the provider forgot the result of request {request.request_id}")
        if answer.status in _CLIENT_ERRORS and answer.status not in _NOT_THE_RESULT:
            return error.failed()
        if answer.status in _SERVER_ERRORS and error.typed:
            return error.failed()
        raise ProviderUnavailable(f"the result cannot be used: HTTP {answer.status}")

    async def _ask(self, method: str, url: str) -> HttpAnswer:
        parsed = self._allowed.parse(url)
        if parsed is None:
            raise ProviderUnavailable(f"the key must not be sent to {url}: see allowed_hosts")
        return await self._exchanged(method, parsed, key=self._settings.key)

    async def _exchanged(self, method: str, url: httpx.URL, *, key: SecretStr) -> HttpAnswer:
        try:
            return await exchange(
                self._poller,
                method,
                url,
                headers=_headers(key),
                deadline_s=self._settings.poll_deadline_s,
                max_answer_bytes=self._settings.max_answer_bytes,
            )
        except (NotSent, AnswerLost) as error:
            raise ProviderUnavailable(f"no answer from the provider: {error}") from error


def _headers(key: SecretStr) -> dict[str, str]:
    return {"Authorization": f"Key {key.get_secret_value()}", "Accept": "application/json"}


def sandbox_settings(url: str, key: SecretStr, *, object_lifetime_s: int = 604_800) -> FalSettings:
    """The settings for a sandbox at this base URL, which is on a network of our own."""
    return FalSettings(
        queue_url=url,
        key=key,
        allow_http=True,
        jwks_url=f"{url.rstrip('/')}/.well-known/jwks.json",
        platform_url=url,
        object_lifetime_s=object_lifetime_s,
        jwks_refresh_wait_s=1.0,
    )


def sandbox_provider(settings: FalSettings) -> FalProvider:
    """The provider named `sandbox`: this adapter, pointed at a server of our own."""
    return FalProvider(settings, name="sandbox")


def _client(settings: FalSettings, limits: httpx.Limits) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        # The deadline of the whole request stands in `exchange`; this is the part before it left.
        timeout=httpx.Timeout(None, connect=settings.connect_timeout_s),
        limits=limits,
        verify=httpx.create_ssl_context(),
        # No proxy from the environment: what is sent holds the key.
        trust_env=False,
        follow_redirects=False,
    )


def _failed_status(said: _Status) -> Failed:
    return Failed(
        code=said.error_type or "provider_error",
        detail=(said.error or "")[:2000],
        retryable=False,
        billed=None,
    )
