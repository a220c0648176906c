"""Answers that a well-behaved HTTP server cannot give: cut, mute, or lying about their length."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.responses import Response
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Receive, Scope, Send

# By both ends' addresses and ports, which name one open connection.
_Ends = tuple[tuple[str, int], tuple[str, int | None]]
_transports: dict[_Ends, asyncio.Transport] = {}


class OpenToCutting(H11Protocol):
    """uvicorn's HTTP/1.1, with its connections where an answer can get at them."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Note the connection."""
        super().connection_made(transport)
        if self.client and self.server:
            _transports[self.client, self.server] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self.client and self.server:
            _transports.pop((self.client, self.server), None)
        super().connection_lost(exc)


class Cut(Response):
    """Writes exactly these bytes, perhaps none, and ends the connection.

    Args:
        raw: what goes out, status line and headers included.
        abrupt: reset the connection instead of closing it after the last byte.
    """

    def __init__(self, raw: bytes = b"", *, abrupt: bool = False) -> None:
        super().__init__()
        self._raw = raw
        self._abrupt = abrupt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write past the server, which would insist on correctness."""
        del send
        transport = _transport(scope)
        if self._raw:
            transport.write(self._raw)
        if self._abrupt:
            transport.abort()
        else:
            transport.close()
        await _disconnected(receive)


class Silence(Response):
    """Never answers: holds the connection until the client has had enough, or the server stops."""

    def __init__(self, stopping: asyncio.Event) -> None:
        super().__init__()
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait for the other side, or for the end."""
        del send
        left = asyncio.ensure_future(_disconnected(receive))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({left, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if not left.done():
            _transport(scope).abort()
        await left


def raw_answer(
    status: int, headers: Mapping[str, str], body: bytes, *, announced_bytes: int
) -> bytes:
    """An answer as it goes over the wire, with a Content-Length of one's choice."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"content-length: {announced_bytes}", "connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def _transport(scope: Scope) -> asyncio.Transport:
    return _transports[tuple(scope["client"]), tuple(scope["server"])]


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
