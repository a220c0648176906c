"""Deadlines for the other end of the connection, which the server itself does not set."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger()


class _NotTaken(Exception):
    """The client took no piece of the answer for too long."""


class SlowClients:
    """Ends requests whose client neither sends nor takes.

    A watcher that does not read would keep its place for ever otherwise: its own deadline is
    looked at between two events, and the first one that does not fit waits to be sent.
    """

    def __init__(self, app: ASGIApp, body_s: float, piece_s: float) -> None:
        """Wrap an app.

        Args:
            app: what answers.
            body_s: for the whole of a request's body.
            piece_s: for one piece of an answer.
        """
        self._app = app
        self._body_s = body_s
        self._piece_s = piece_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        ends_at: float | None = None
        complete = False

        async def receive_in_time() -> Message:
            nonlocal ends_at, complete
            if complete:
                return await receive()  # the client going away, which may take any time
            ends_at = ends_at or asyncio.get_running_loop().time() + self._body_s
            try:
                async with asyncio.timeout_at(ends_at):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(
                    HTTPStatus.REQUEST_TIMEOUT,
                    f"the body did not arrive within {self._body_s:g} s",
                    headers={"Connection": "close"},
                ) from error
            complete = not message.get("more_body", False)
            return message

        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(self._piece_s):
                    await send(message)
            except TimeoutError as error:
                raise _NotTaken from error

        try:
            await self._app(scope, receive_in_time, send_in_time)
        except* _NotTaken:
            # The server closes a connection whose answer was left incomplete.
            log.info("answer_not_taken", path=scope["path"], within_s=self._piece_s)
