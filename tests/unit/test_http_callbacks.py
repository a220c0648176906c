from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from generation_svc.adapters.http.limits import MAX_BODY_BYTES
from generation_svc.application.accept_webhook import AcceptWebhook, webhook_token
from generation_svc.application.deciding import Decided
from generation_svc.application.provider import WebhookKeysUnavailable, WebhookRejected
from generation_svc.domain.decide import UnknownGeneration
from generation_svc.domain.state import Absent
from shared.event_log.port import AppendOutcomeUnknown, LogUnavailable, VersionConflict
from tests.http_service import HttpService, now

if TYPE_CHECKING:
    from collections.abc import Mapping

    from generation_svc.application.finish_generation import FinishGeneration
    from generation_svc.application.provider import Provider, WebhookCall

PATH = "/v1/webhooks/fal/g-1/0123abcd"


async def test_a_callback_is_handed_on_as_it_was_sent() -> None:
    calls: list[tuple[str, str, str, WebhookCall]] = []

    async def accept(provider: str, generation_id: str, token: str, call: WebhookCall) -> Decided:
        calls.append((provider, generation_id, token, call))
        return Decided(Absent(), (), 7)

    body = b'{"payload":  [1.0, "\xc3\xa9"]}\n'
    async with HttpService(accept_webhook=accept).client() as client:
        answer = await client.post(
            PATH, content=body, headers={"X-Fal-Webhook-Signature": "AbCd", "content-type": "a/b"}
        )
    assert answer.status_code == 200
    assert answer.json() == {"generation_id": "g-1", "position": 7}
    ((provider, generation_id, token, call),) = calls
    assert (provider, generation_id, token) == ("fal", "g-1", "0123abcd")
    assert call.body == body
    assert call.headers["x-fal-webhook-signature"] == "AbCd"


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (WebhookRejected("bad signature"), 401, "webhook-rejected"),
        (WebhookKeysUnavailable("no keys"), 503, "try-later"),
        (LogUnavailable("no log"), 503, "log-unavailable"),
        (AppendOutcomeUnknown("no answer"), 503, "outcome-unknown"),
        (VersionConflict("others were faster"), 503, "try-later"),
        (UnknownGeneration("nobody asked"), 404, "generation-not-found"),
    ],
)
async def test_the_provider_is_told_whether_to_call_again(
    error: Exception, status: int, kind: str
) -> None:
    async def accept(_provider: str, _id: str, _token: str, _call: WebhookCall) -> Decided:
        raise error

    async with HttpService(accept_webhook=accept).client() as client:
        answer = await client.post(PATH, content=b"{}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == f"/problems/{kind}"
    assert ("retry-after" in answer.headers) == (status == 503)
    assert ("www-authenticate" in answer.headers) == (status == 401)


async def test_a_callback_with_a_token_made_for_another_generation_is_not_believed() -> None:
    # Neither is reached: that is what the token is for.
    finish = cast("FinishGeneration", None)
    providers = cast("Mapping[str, Provider]", {"fal": object()})
    accept = AcceptWebhook(finish, providers, b"secret", clock=now)
    token = webhook_token(b"secret", "fal", "g-2")
    async with HttpService(accept_webhook=accept).client() as client:
        answer = await client.post(f"/v1/webhooks/fal/g-1/{token}", content=b"{}")
    assert answer.status_code == 401


async def test_a_callback_over_the_limit_is_refused() -> None:
    async with HttpService().client() as client:
        answer = await client.post(PATH, content=b" " * (MAX_BODY_BYTES + 1))
    assert answer.status_code == 413
    assert answer.json()["type"] == "/problems/too-large"
