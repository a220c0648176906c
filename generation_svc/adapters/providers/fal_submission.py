"""A submission on its way out, and what its answer comes to."""

from __future__ import annotations

import json
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from generation_svc.adapters.providers.fal_http import parse
from generation_svc.adapters.providers.fal_payload import error_in
from generation_svc.application.provider import (
    ProviderRequest,
    SubmitOutcomeUnknown,
    SubmitRefused,
    SubmitTryLater,
)

if TYPE_CHECKING:
    import httpx

    from generation_svc.adapters.providers.fal_http import HttpAnswer
    from generation_svc.adapters.providers.fal_settings import AllowedUrls
    from generation_svc.application.provider import Submission

# Two to six parts, none of dots alone: it becomes a path.
_MODEL_PATH = re.compile(r"(?!.*(?:^|/)\.+(?:/|$))[\w.-]+(?:/[\w.-]+){1,5}", re.ASCII)
_MAX_RETRY_AFTER_S = 3600.0

_CLIENT_ERRORS = range(400, 500)
_SERVER_ERRORS = range(500, 600)
# The request did not arrive whole, came too early, or came too often: nothing was taken.
_NOT_NOW = frozenset({408, 425, 429})
# A gateway gave up on what stands behind it, which may have taken the work all the same.
_GATEWAY_LOST_IT = frozenset({502, 504})


class _Taken(BaseModel):
    model_config = ConfigDict(extra="ignore")

    request_id: str = Field(min_length=1, max_length=200)
    status_url: str
    response_url: str
    cancel_url: str


def content_of(submission: Submission) -> bytes:
    """The body to send.

    Raises:
        SubmitRefused: it would be refused, or answered with something that cannot be kept.
    """
    if not _MODEL_PATH.fullmatch(submission.model):
        detail = "a model is named owner/name, with further parts after slashes"
        raise SubmitRefused("bad_model", detail, billed=False)
    if submission.input.get("sync_mode"):
        detail = "sync_mode puts the media into the answer instead of behind links: leave it out"
        raise SubmitRefused("sync_mode_unsupported", detail, billed=False)
    try:
        return json.dumps(dict(submission.input), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        detail = f"the input cannot be sent as JSON: {error}"
        raise SubmitRefused("bad_input", detail, billed=False) from error


def taken_from(answer: HttpAnswer, allowed: AllowedUrls) -> ProviderRequest:
    """Tell from a submission's answer what became of it.

    Raises:
    SubmitRefused: a 4xx.
    SubmitTryLater: 408, 425, 429, 500, 503 and their like.
    SubmitOutcomeUnknown: an answer that cannot be used, or a gateway's 502 or 504.
    """
    status = answer.status
    if status in _NOT_NOW or (status in _SERVER_ERRORS and status not in _GATEWAY_LOST_IT):
        error = error_in(answer)
        raise SubmitTryLater(
            f"{error.code}: {error.detail}", retry_after_s=_retry_after_s(answer.headers)
        )
    if status in _CLIENT_ERRORS:
        error = error_in(answer)
        raise SubmitRefused(error.code, error.detail, billed=error.billed)
    taken = parse(_Taken, answer) if status in range(200, 300) else None
    if taken is None:
        raise SubmitOutcomeUnknown(f"the submission's answer cannot be used: HTTP {status}")
    for url in (taken.status_url, taken.response_url, taken.cancel_url):
        if allowed.parse(url) is None:
            raise SubmitOutcomeUnknown(
                f"request {taken.request_id} was taken with a URL outside allowed_hosts: {url}"
            )
    return ProviderRequest(
        request_id=taken.request_id,
        status_url=taken.status_url,
        response_url=taken.response_url,
        cancel_url=taken.cancel_url,
    )


def _retry_after_s(headers: httpx.Headers) -> float | None:
    """Retry-After, which is seconds or a date (RFC 9110, 10.2.3); the date counts from theirs."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), _MAX_RETRY_AFTER_S)
    try:
        at = parsedate_to_datetime(value)
        sent_at = parsedate_to_datetime(headers.get("date", ""))
    except ValueError:
        return None
    wait_s = (at.astimezone(UTC) - sent_at.astimezone(UTC)).total_seconds()
    return min(max(wait_s, 0.0), _MAX_RETRY_AFTER_S)
