"""Believe a provider's callback only when it is signed and bears the token we made for it."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from generation_svc.application.provider import WebhookRejected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from generation_svc.application.deciding import Decided
    from generation_svc.application.finish_generation import FinishGeneration
    from generation_svc.application.provider import Provider, WebhookCall


def webhook_token(secret: bytes, provider: str, generation_id: str) -> str:
    """What only we could have put into this generation's callback URL.

    A provider signs its body and not the URL, so without this anybody with an account of their
    own at the provider could report their result as one of ours.
    """
    message = f"{provider}/{generation_id}".encode()
    return hmac.new(secret, message, hashlib.sha256).hexdigest()[:40]


@dataclass(frozen=True, slots=True)
class AcceptWebhook:
    """Verifies callbacks and records what they report."""

    finish: FinishGeneration
    providers: Mapping[str, Provider]
    secret: bytes
    clock: Callable[[], datetime]

    async def __call__(
        self, provider_name: str, generation_id: str, token: str, call: WebhookCall
    ) -> Decided:
        """Record the result that the callback brings.

        Raises:
            WebhookRejected: unknown provider, wrong token, bad signature.
            UnknownGeneration: nobody asked for it.
            TryLater: keys or log cannot be had now; the provider should call again.
        """
        expected = webhook_token(self.secret, provider_name, generation_id)
        provider = self.providers.get(provider_name)
        if provider is None or not hmac.compare_digest(expected.encode(), token.encode()):
            raise WebhookRejected("this is not a callback URL that this service gave out")
        report = await provider.read_webhook(call, now=self.clock())
        return await self.finish(
            generation_id, report.result, request_id=report.request_id, traits=provider.traits
        )
