"""A media server that does, byte for byte, what a test tells it to: also what no server should."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from email.parser import BytesHeaderParser
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
    from email.message import Message

    Act = Callable[["Seen", asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Seen:
    """A request as it came."""

    method: str
    target: str
    headers: Message
    gone: asyncio.Task[None]
    """Done when the other side has closed."""


@dataclass
class HostileHost:
    """Serves one connection a request. Each path has its acts; the last one is repeated."""

    port: int = 0
    scheme: str = "http"
    seen: list[Seen] = field(default_factory=list[Seen])
    _acts: dict[str, list[Act]] = field(default_factory=dict[str, "list[Act]"])

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, path: str = "/a.png", *, name: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{name}:{self.port}{path}"

    def does(self, *acts: Act, path: str = "/a.png") -> str:
        """What it does at a path; the path's URL."""
        self._acts[path] = list(acts)
        return self.url(path)

    def headers_seen(self, name: str) -> list[str | None]:
        return [seen.headers[name] for seen in self.seen]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line, _, rest = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
            method, target, _ = line.decode().split(" ", 2)
            gone = asyncio.create_task(_gone(reader))
            seen = Seen(method, target, BytesHeaderParser().parsebytes(rest), gone)
            self.seen.append(seen)
            acts = self._acts.get(target.partition("?")[0]) or [answers(status=404)]
            try:
                await (acts.pop(0) if len(acts) > 1 else acts[0])(seen, writer)
            finally:
                gone.cancel()
            writer.close()
            await writer.wait_closed()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the other side has had enough, which some tests are about
        finally:
            writer.transport.abort()


async def _gone(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        await reader.read()


@contextlib.asynccontextmanager
async def hostile_host(tls: ssl.SSLContext | None = None) -> AsyncGenerator[HostileHost]:
    host = HostileHost(scheme="https" if tls else "http")
    conversations: set[asyncio.Task[None]] = set()

    def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = asyncio.create_task(host.serve(reader, writer))
        conversations.add(conversation)
        conversation.add_done_callback(conversations.discard)

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
    host.port = server.sockets[0].getsockname()[1]
    try:
        yield host
    finally:
        server.close()
        for conversation in tuple(conversations):
            conversation.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)
        await server.wait_closed()


def head(status: int = 200, headers: Mapping[str, str | None] | None = None) -> bytes:
    """A status line and headers; one of None is left out."""
    said = {"Content-Type": "image/png", "Connection": "close", **(headers or {})}
    lines = [f"HTTP/1.1 {status} x", *(f"{name}: {v}" for name, v in said.items() if v is not None)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def answers(
    body: bytes = b"",
    *,
    status: int = 200,
    announced: int | None = -1,
    cut_after: int | None = None,
    headers: Mapping[str, str | None] | None = None,
    **more: str | None,
) -> Act:
    """An answer in one piece.

    Args:
        body: what there is.
        status: of the answer.
        announced: Content-Length; None leaves it out, -1 tells the truth.
        cut_after: close after so many bytes of the body.
        headers: more of them.
        more: the same, with underscores for hyphens.
    """
    length = len(body) if announced == -1 else announced
    said: dict[str, str | None] = {"Content-Length": None if length is None else str(length)}
    said |= headers or {}
    said |= {name.replace("_", "-"): value for name, value in more.items()}

    async def act(_: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(head(status, said) + body[:cut_after])
        await writer.drain()

    return act


def ranged(body: bytes, *, etag: str | None, cut_after: int | None = None) -> Act:
    """An answer that honours Range where If-Range has the file's ETag (RFC 9110, 13.1.5)."""

    async def act(seen: Seen, writer: asyncio.StreamWriter) -> None:
        wanted, condition = seen.headers["Range"], seen.headers["If-Range"]
        if wanted is not None and condition == etag:
            first = int(wanted.removeprefix("bytes=").partition("-")[0])
            part = f"bytes {first}-{len(body) - 1}/{len(body)}"
            await answers(
                body[first:], status=206, Content_Range=part, ETag=etag, cut_after=cut_after
            )(seen, writer)
        else:
            await answers(body, ETag=etag, Accept_Ranges="bytes", cut_after=cut_after)(seen, writer)

    return act


def chunked(*pieces: bytes, ended: bool = True) -> Act:
    """An answer in chunks, which says where it ends, unless it does not."""

    async def act(_: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(head(headers={"Transfer-Encoding": "chunked"}))
        for piece in pieces:
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        if ended:
            writer.write(b"0\r\n\r\n")
        await writer.drain()

    return act


def dribbles(body: bytes, *, piece_bytes: int, every_s: float) -> Act:
    """A complete answer, slowly."""

    async def act(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(head(headers={"Content-Length": str(len(body))}))
        for at in range(0, len(body), piece_bytes):
            writer.write(body[at : at + piece_bytes])
            await writer.drain()
            done, _ = await asyncio.wait({seen.gone}, timeout=every_s)
            if done:
                return

    return act


def floods(piece: bytes) -> Act:
    """A body without end or length, until the other side has had enough."""

    async def act(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(head())
        while not seen.gone.done():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    return act


def pours(start: bytes, *, size_bytes: int, piece_bytes: int = 1024 * 1024) -> Act:
    """A complete answer of any size: a beginning, and then zeros."""

    async def act(_: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(head(headers={"Content-Length": str(size_bytes)}) + start)
        left = size_bytes - len(start)
        piece = bytes(piece_bytes)
        while left:
            writer.write(piece[:left])
            left -= len(piece[:left])
            await writer.drain()

    return act


async def hangs(seen: Seen, _: asyncio.StreamWriter) -> None:
    """No answer at all."""
    await asyncio.wait({seen.gone})


async def hangs_up(_: Seen, writer: asyncio.StreamWriter) -> None:
    """A closed connection, and not a word."""
    writer.close()


def begins_and_hangs(body: bytes, *, announced: int) -> Act:
    """A beginning, and then nothing more."""

    async def act(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(head(headers={"Content-Length": str(announced)}) + body)
        await writer.drain()
        await asyncio.wait({seen.gone})

    return act


def redirects(location: str, *, status: int = 302) -> Act:
    return answers(status=status, Location=location)


def says(raw: bytes) -> Act:
    """These bytes, whatever they are."""

    async def act(_: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()

    return act
