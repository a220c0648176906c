"""What every request passes: a bound for its body, and a name that its log lines share."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

CORRELATION_HEADER: Final = "X-Correlation-ID"
TRACE_HEADER: Final = "traceparent"
_STATE: Final = "correlation_id"
_USABLE: Final = re.compile(r"[!-~]{1,128}")
# Version 00, which later versions begin with; ids of zeros alone are none.
# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def usable_correlation_id(given: str | None) -> str | None:
    """What the caller named the request, if that is a word of at most 128 characters."""
    return given if given is not None and _USABLE.fullmatch(given) else None


def usable_traceparent(given: str | None) -> str | None:
    """The caller's place in a trace, passed on as it came: no spans of our own are recorded."""
    return given if given is not None and _TRACEPARENT.fullmatch(given) else None


def correlation_id_of(request: Request) -> str | None:
    """What a request that passed `Correlation` is named."""
    return getattr(request.state, _STATE, None)


class Correlation:
    """Takes the caller's name for the request, or makes one, and gives it back with the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = usable_correlation_id(Headers(scope=scope).get(CORRELATION_HEADER))
        correlation_id = given or str(uuid.uuid4())
        scope.setdefault("state", {})[_STATE] = correlation_id

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                # A route may know better: a new generation's events are named by its id.
                MutableHeaders(scope=message).setdefault(CORRELATION_HEADER, correlation_id)
            await send(message)

        with structlog.contextvars.bound_contextvars(correlation_id=correlation_id):
            await self._app(scope, receive, send_named)


class BoundedBodies:
    """Ends reading a body that is too large.

    Starlette's own middleware for it answers in plain text where the length was announced; this
    one raises where the body is read, so that the answer is a problem like any other.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        too_large = announced.isdecimal() and int(announced[:20]) > self._max_bytes
        arrived = 0

        async def receive_bounded() -> Message:
            nonlocal arrived
            if not too_large:
                message = await receive()
                arrived += len(message.get("body", b""))
                if arrived <= self._max_bytes:
                    return message
            raise HTTPException(413, f"a body may have {self._max_bytes} bytes")

        await self._app(scope, receive_bounded, send)
