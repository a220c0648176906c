"""Where providers report results."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Path, Request

from generation_svc.adapters.http.models import ReceivedAnswer
from generation_svc.adapters.http.openapi import answers
from generation_svc.adapters.http.parameters import GenerationId
from generation_svc.adapters.http.problems import (
    InvalidRequest,
    Later,
    LogAway,
    NotACallback,
    NotFound,
    OutcomeUnknown,
    TooLarge,
    TooSlow,
    WillNotDo,
)
from generation_svc.application.deciding import Decided
from generation_svc.application.provider import WebhookCall

AcceptsWebhooks = Callable[[str, str, str, WebhookCall], Awaitable[Decided]]
"""`AcceptWebhook`: provider, generation id, token, call."""

_Provider = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
_Token = Annotated[str, Path(pattern=r"^[0-9a-f]{1,128}$", description="Made for this URL alone.")]


def webhook_router(accept: AcceptsWebhooks) -> APIRouter:
    """The one route of callbacks."""

    async def receive(
        provider: _Provider, generation_id: GenerationId, token: _Token, request: Request
    ) -> ReceivedAnswer:
        """Report a result, signed. Reporting again changes nothing."""
        # Signatures are over the bytes as they were sent: nothing is parsed before.
        call = WebhookCall(headers=dict(request.headers), body=await request.body())
        decided = await accept(provider, generation_id, token, call)
        return ReceivedAnswer(generation_id=generation_id, position=decided.position)

    router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])
    router.add_api_route(
        "/{provider}/{generation_id}/{token}",
        receive,
        methods=["POST"],
        responses=answers(
            InvalidRequest,
            WillNotDo,
            NotACallback,
            NotFound,
            TooLarge,
            TooSlow,
            LogAway,
            OutcomeUnknown,
            Later,
        ),
        openapi_extra={
            "requestBody": {
                "description": "As the provider documents it.",
                "required": True,
                "content": {"application/json": {"schema": {}}},
            }
        },
    )
    return router
