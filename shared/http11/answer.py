"""An answer: its head, and its body read without passing through a parser.

A head that is plain, as nearly all are, is taken apart here: that is a tenth of what h11 takes, and
h11 would be a third of all that a small file costs. Whatever is not plain is its, chunks among it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import h11

from shared.http11.errors import Cut, NotHttp, Silent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.http11.connection import Connection

_HEAD_BYTES: Final = 32 * 1024
_PIECE_BYTES: Final = 16 * 1024
# A status that ends an exchange, and one field a line, of what RFC 9110 lets them be; folded lines,
# and what only old software says, are not plain.
_HEAD: Final = re.compile(
    r"HTTP/1\.1 ([2-5][0-9]{2}) [\t\x20-\x7e]*"
    r"((?:\r\n[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\xff]*)*)"
)
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_NO_BODY: Final = frozenset({204, 304})
_ASKED: Final = {
    method: h11.Request(method=method, target="/", headers=[("Host", "_")])
    for method in ("GET", "HEAD", "PUT")
}


@dataclass(slots=True)
class Answer:
    """What a server says, its body still to be read.

    Attributes:
        status: from 200 on.
        headers: by name in lower case; those that came more than once joined by commas.
        length: of the body in bytes, where the head says it.
        ends_by_closing: neither a length nor chunks tell where the body ends.
    """

    status: int
    headers: Mapping[str, str]
    length: int | None
    ends_by_closing: bool
    _connection: Connection
    _keeps: bool
    # What came behind the head; and the reader of chunks, where the body comes in those.
    _early: bytes
    _chunks: h11.Connection | None
    _received: int = field(default=0)
    _whole: bool = field(default=False)
    _overran: bool = field(default=False)

    @property
    def overran(self) -> bool:
        """Whether more came behind the end of the body, where it has come to that."""
        return self._whole and bool(self._overran or self._early or self._connection.has_early)

    @property
    def reusable(self) -> bool:
        """Whether the connection can serve another exchange."""
        ended = self._connection.has_ended
        return self._keeps and self._whole and not self.overran and not ended

    async def read_into(self, target: memoryview) -> int:
        """Wait for more of the body, and how much came; 0 at its end.

        Raises:
            Cut: the connection ended before the body did, or nothing came for too long.
            NotHttp: the chunks are none.
        """
        if self._chunks is not None:
            return await self._read_chunk(self._chunks, target)
        left = len(target)
        if self.length is not None:
            left = self.length - self._received
            if not left:
                return 0
            # One byte more than is due: what stands behind a body shows that its length is wrong.
            target = target[: left + 1]
        if self._early:
            came = min(len(target), len(self._early))
            target[:came] = self._early[:came]
            self._early = self._early[came:]
        else:
            came = await self._connection.read_into(target)
        self._overran = self._overran or came > left
        came = min(came, left)
        self._received += came
        if self.length is not None:
            if not came:
                raise Cut(f"{self._received:,} of {self.length:,} bytes came")
            self._whole = self._received == self.length
        return came

    async def read(self, *, at_most: int) -> bytes:
        """The whole body.

        Raises:
            Cut: as `read_into`.
            NotHttp: as `read_into`, or there is more than is allowed.
        """
        if self.length == 0:
            return b""
        expected = at_most + 1 if self.length is None else self.length
        held = bytearray(min(_PIECE_BYTES if self.length is None else at_most + 1, expected))
        size = 0
        while True:
            if size > at_most or (self.length or 0) > at_most:
                raise NotHttp(f"more than the {at_most:,} bytes that are read of such an answer")
            if size == len(held) and size != self.length:
                held.extend(bytes(len(held)))
            with memoryview(held) as view:
                came = await self.read_into(view[size:]) if size < len(held) else 0
            if not came:
                return bytes(held[:size])
            size += came

    async def _read_chunk(self, chunks: h11.Connection, target: memoryview) -> int:
        while not self._early:
            event = await _next(chunks, self._connection)
            if isinstance(event, h11.EndOfMessage):
                # What follows it is nobody's.
                self._early, self._whole = chunks.trailing_data[0], True
                return 0
            if isinstance(event, h11.Data):
                self._early = bytes(event.data)
        came = min(len(target), len(self._early))
        target[:came] = self._early[:came]
        self._early = self._early[came:]
        return came


async def read_answer(connection: Connection, method: str) -> Answer:
    """Wait for the head of the answer to a request.

    Raises:
        Cut: the connection ended before it.
        NotHttp: what came is no answer.
    """
    first = await _piece(connection, unanswered=True)
    if (answer := _plain(first, connection, method)) is not None:
        return answer
    reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)
    reader.receive_data(first)
    reader.send(_ASKED[method])
    reader.send(h11.EndOfMessage())
    while True:
        event = await _next(reader, connection)
        if isinstance(event, h11.Response):
            return _answer(event, reader, connection, method)
        if not isinstance(event, h11.InformationalResponse) or event.status_code == 101:  # noqa: PLR2004 - HTTP: another protocol from here on
            raise NotHttp("no answer but something else came")


async def _next(reader: h11.Connection, connection: Connection) -> object:
    """The next that h11 makes of what comes."""
    while True:
        try:
            event = reader.next_event()
        except h11.RemoteProtocolError as error:
            raise NotHttp(str(error)) from error
        if event is not h11.NEED_DATA:
            return event
        reader.receive_data(await _piece(connection, unanswered=False))


async def _piece(connection: Connection, *, unanswered: bool) -> bytes:
    """What comes next of an answer."""
    piece = memoryview(bytearray(_PIECE_BYTES))
    try:
        came = await connection.read_into(piece)
    except Silent:
        raise
    except Cut as error:
        raise Cut(str(error), unanswered=unanswered) from error
    if not came:
        raise Cut("the connection ended before the answer did", unanswered=unanswered)
    return bytes(piece[:came])


def _plain(first: bytes, connection: Connection, method: str) -> Answer | None:
    """An answer whose body has a length, or is none, by its head alone; None: it is not plain."""
    head, found, early = first.partition(b"\r\n\r\n")
    plain = _HEAD.fullmatch(head.decode("latin-1"))
    if not found or plain is None:
        return None
    status, fields = int(plain[1]), plain[2].split("\r\n")[1:]
    headers = {
        name.lower(): text.strip("\t ")
        for name, _, text in [line.partition(":") for line in fields]
    }
    length = headers.get("content-length")
    if len(headers) != len(fields) or "transfer-encoding" in headers:
        return None
    bodiless = method == "HEAD" or status in _NO_BODY
    if not (bodiless if length is None else _LENGTH.fullmatch(length)):
        return None
    size = 0 if bodiless else int(length or 0)
    return Answer(
        status=status,
        headers=headers,
        length=size,
        ends_by_closing=False,
        _connection=connection,
        _keeps=_keeps(headers),
        _early=early,
        _chunks=None,
        _whole=not size,
    )


def _keeps(headers: Mapping[str, str]) -> bool:
    said = headers.get("connection")
    return said is None or "close" not in {word.strip() for word in said.lower().split(",")}


def _answer(
    response: h11.Response, reader: h11.Connection, connection: Connection, method: str
) -> Answer:
    headers: dict[str, str] = {}
    for raw_name, raw in response.headers:
        name, value = raw_name.decode("ascii"), raw.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    chunked = "transfer-encoding" in headers
    length = None if chunked or "content-length" not in headers else int(headers["content-length"])
    if method == "HEAD" or response.status_code in _NO_BODY:
        length, chunked = 0, False
    return Answer(
        status=response.status_code,
        headers=headers,
        length=length,
        ends_by_closing=length is None and not chunked,
        _connection=connection,
        _keeps=response.http_version == b"1.1" and _keeps(headers),
        _early=b"" if chunked else reader.trailing_data[0],
        _chunks=reader if chunked else None,
        _whole=length == 0,
    )
